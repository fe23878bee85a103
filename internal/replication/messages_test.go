package replication_test

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// at is a time that PostgreSQL can send: to the microsecond.
func at() time.Time { return time.Date(2000, 1, 1, 0, 0, 1, 2000, time.UTC) }

func TestMessagesAreWhatPostgreSQLSends(t *testing.T) {
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"WAL":       {replication.AppendDataHeader(nil, 0x16_B374D848, 0x17_00000000, at(), 100), "64 00000081 77 00000016b374d848 0000001700000000 00000000000f4242"},
		"keepalive": {replication.AppendKeepalive(nil, 0x16_B374D848, at(), true), "64 00000016 6b 00000016b374d848 00000000000f4242 01"},
		"status": {
			replication.AppendStatus(nil, replication.Status{Write: 3, Flush: 2, Apply: 1, SentAt: at()}),
			"64 00000026 72 0000000000000003 0000000000000002 0000000000000001 00000000000f4242 00",
		},
		"feedback": {
			replication.AppendFeedback(nil, replication.Feedback{SentAt: at(), Xmin: 2<<32 | 700}),
			"64 0000001d 68 00000000000f4242 000002bc 00000002 00000000 00000000",
		},
		"another kind": {replication.AppendCopy([]byte{1}, 'f', []byte{2, 3}, nil, []byte{4}), "01 64 00000008 66 02 03 04"},
	} {
		want, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(tt.want), []byte(" "), nil)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tt.got, want) {
			t.Errorf("%s: got %x, want %x", name, tt.got, want)
		}
	}
}

func TestAStatusIsReadAsItWasSent(t *testing.T) {
	want := replication.Status{Write: 1 << 40, Flush: 2, Apply: 1<<64 - 1, SentAt: at(), Reply: true}
	got, err := replication.ParseStatus(replication.AppendStatus(nil, want)[5:])
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestFeedbackIsReadAsItWasSent(t *testing.T) {
	want := replication.Feedback{SentAt: at(), Xmin: 7<<32 | 700, CatalogXmin: 701}
	got, err := replication.ParseFeedback(replication.AppendFeedback(nil, want)[5:])
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestFeedbackThatHoldsNothingBackHasNoEpoch(t *testing.T) {
	payload := replication.AppendFeedback(nil, replication.Feedback{Xmin: 7 << 32, CatalogXmin: 7 << 32})[5:]
	got, err := replication.ParseFeedback(payload)
	if err != nil || got.Xmin != 0 || got.CatalogXmin != 0 {
		t.Errorf("ParseFeedback(%x) = %+v, %v; want zeros", payload, got, err)
	}
}

func TestWhatIsNoStatusAndNoFeedbackIsRefused(t *testing.T) {
	status := replication.AppendStatus(nil, replication.Status{})[5:]
	feedback := replication.AppendFeedback(nil, replication.Feedback{})[5:]
	for _, payload := range [][]byte{nil, {}, feedback, status[:33], append(status, 0)} {
		if got, err := replication.ParseStatus(payload); err == nil {
			t.Errorf("ParseStatus(%x) = %+v, want an error", payload, got)
		}
	}
	for _, payload := range [][]byte{nil, {}, status, feedback[:24], append(feedback, 0)} {
		if got, err := replication.ParseFeedback(payload); err == nil {
			t.Errorf("ParseFeedback(%x) = %+v, want an error", payload, got)
		}
	}
}

func FuzzParseStandbyMessage(f *testing.F) {
	f.Add(replication.AppendStatus(nil, replication.Status{Write: 3, SentAt: at()})[5:])
	f.Add(replication.AppendFeedback(nil, replication.Feedback{Xmin: 3, SentAt: at()})[5:])
	f.Add([]byte("r"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if s, err := replication.ParseStatus(payload); err == nil {
			if again, err := replication.ParseStatus(replication.AppendStatus(nil, s)[5:]); err != nil || again != s {
				t.Fatalf("%x reads as %+v, which reads as %+v, %v", payload, s, again, err)
			}
		}
		if f, err := replication.ParseFeedback(payload); err == nil {
			if again, err := replication.ParseFeedback(replication.AppendFeedback(nil, f)[5:]); err != nil || again != f {
				t.Fatalf("%x reads as %+v, which reads as %+v, %v", payload, f, again, err)
			}
		}
	})
}

func TestAppendingToABufferThatIsLargeEnoughAllocatesNothing(t *testing.T) {
	buffer := make([]byte, 0, 64)
	got := testing.AllocsPerRun(100, func() {
		_ = replication.AppendDataHeader(buffer, wal.LSN(1), wal.LSN(2), at(), 8192)
		_ = replication.AppendKeepalive(buffer, wal.LSN(1), at(), false)
		_ = replication.AppendStatus(buffer, replication.Status{})
	})
	if got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}
