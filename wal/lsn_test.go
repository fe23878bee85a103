package wal_test

import (
	"strings"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestAnLSNIsReadAsPostgreSQLPrintsIt(t *testing.T) {
	for text, want := range map[string]wal.LSN{
		"0/0":               0,
		"16/B374D848":       0x16_B374D848,
		"16/b374d848":       0x16_B374D848,
		"0/1":               1,
		"FFFFFFFF/FFFFFFFF": 1<<64 - 1,
	} {
		got, err := wal.ParseLSN(text)
		if err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %d, %v; want %d", text, got, err, want)
		}
		if got.String() != strings.ToUpper(text) {
			t.Errorf("LSN(%d).String() = %q, want %q", got, got, strings.ToUpper(text))
		}
	}
}

func TestWhatPostgreSQLWouldNotPrintIsNoLSN(t *testing.T) {
	for _, text := range []string{"", "/", "1/", "/1", "1", "1/2/3", "0/123456789", "+1/2", "1/-2", "0x1/2", "1_0/2", " 1/2", "1/2 ", "g/1"} {
		if got, err := wal.ParseLSN(text); err == nil {
			t.Errorf("ParseLSN(%q) = %s, want an error", text, got)
		}
		l := wal.LSN(7)
		if err := l.UnmarshalText([]byte(text)); err == nil || l != 7 {
			t.Errorf("UnmarshalText(%q) = %v and leaves %s, want an error and 0/7", text, err, l)
		}
	}
}

func TestAnLSNTravelsAsText(t *testing.T) {
	text, err := wal.LSN(0x16_B374D848).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got wal.LSN
	if err := got.UnmarshalText(text); err != nil || got != 0x16_B374D848 {
		t.Errorf("UnmarshalText(%q) gives %s, %v", text, got, err)
	}
}

func TestBehindCountsBytesAndNeverLessThanNone(t *testing.T) {
	if got := wal.LSN(90).Behind(100); got != 10 {
		t.Errorf("90 is %d behind 100, want 10", got)
	}
	if got := wal.LSN(100).Behind(90); got != 0 {
		t.Errorf("100 is %d behind 90, want 0", got)
	}
}

func TestAnInsertPositionBehindAPageHeaderIsMovedToWhereAReplicaArrives(t *testing.T) {
	const segment = wal.DefaultSegmentSize
	for name, tt := range map[string]struct {
		lsn     wal.LSN
		segment uint64
		want    wal.LSN
	}{
		"first page of a segment":        {0x6000028, segment, 0x6000000},
		"later page":                     {0x6002018, segment, 0x6002000},
		"in the middle of a page":        {0x6002400, segment, 0x6002400},
		"on the edge of a page":          {0x6002000, segment, 0x6002000},
		"first page of a 1 MB segment":   {0x6100028, 1 << 20, 0x6100000},
		"size of segments not known":     {0x6002018, 0, 0x6002000},
		"short header in a first page":   {0x6000018, segment, 0x6000018},
		"long header in a middle page":   {0x6002028, segment, 0x6002028},
		"last page of a segment":         {0x6FFE018, segment, 0x6FFE000},
		"no position":                    {0, segment, 0},
		"same offset, larger segment":    {0x6100028, 64 << 20, 0x6100028},
		"second page of a large segment": {0x4002018, 64 << 20, 0x4002000},
	} {
		if got := tt.lsn.EndOfRecord(tt.segment); got != tt.want {
			t.Errorf("%s: %s.EndOfRecord(%d) = %s, want %s", name, tt.lsn, tt.segment, got, tt.want)
		}
	}
}

func FuzzParseLSN(f *testing.F) {
	for _, seed := range []string{"0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "00/01", "x", "1/+2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := wal.ParseLSN(text)
		if err != nil {
			return
		}
		again, err := wal.ParseLSN(l.String())
		if err != nil || again != l {
			t.Fatalf("ParseLSN(%q) = %s, which reads as %s, %v", text, l, again, err)
		}
	})
}
