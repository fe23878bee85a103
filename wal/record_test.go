package wal_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/walfake"
	"github.com/heliosdb/helios/wal"
)

// le puts numbers of 1, 2, 4 or 8 bytes behind each other.
func le(numbers ...any) []byte {
	var out []byte
	for _, n := range numbers {
		switch n := n.(type) {
		case int:
			out = append(out, byte(n))
		case []byte:
			out = append(out, n...)
		default:
			out, _ = binary.Append(out, binary.LittleEndian, n)
		}
	}
	return out
}

// one decodes a log of one record.
func one(t *testing.T, version int, r walfake.Record) (*wal.Record, error) {
	t.Helper()
	l := walfake.New(version, begin)
	l.Append(r)
	d := wal.NewDecoder(begin)
	d.Feed(l.Bytes())
	return d.Next(), d.Err()
}

func TestBlocksAndWhatIsInThemAreFound(t *testing.T) {
	r, err := one(t, 14, walfake.Record{XID: 778, Manager: wal.ManagerHeap, Info: 0x40, Body: le(
		0, 0x20, uint16(3), uint32(1663), uint32(5), uint32(16384), uint32(7), // with data
		1, 0x80|0x40|2, uint16(0), uint32(8), // the same relation's visibility map, made anew
		5, 0x10, uint16(0), uint16(8000), uint16(100), 0x01|0x02|0x04, uint16(192), uint32(1664), uint32(0), uint32(1262), uint32(9), // with an image
		253, uint16(4), 252, uint32(777), 255, 2,
		[]byte("abc"), make([]byte, 8000), []byte("zz"),
	)})
	if err != nil || r == nil {
		t.Fatal(err)
	}
	blocks := r.Blocks()
	if len(blocks) != 3 || string(blocks[0].Data) != "abc" || blocks[0].Number != 7 || blocks[0].File != (wal.RelFile{Tablespace: 1663, Database: 5, Number: 16384}) {
		t.Fatalf("blocks are %+v", blocks)
	}
	if b := blocks[1]; b.File != blocks[0].File || b.Fork != wal.VisibilityFork || !b.WillInit || b.Number != 8 || b.HasImage {
		t.Errorf("the second block is %+v", b)
	}
	if b := blocks[2]; b.ID != 5 || !b.HasImage || !b.Apply || b.Compression != wal.PGLZ || len(b.Image) != 8000 || b.HoleOffset != 100 || b.HoleLength != 192 {
		t.Errorf("the third block has compression %d, apply %v, hole %d+%d", b.Compression, b.Apply, b.HoleOffset, b.HoleLength)
	}
	if string(r.Main) != "zz" || r.Origin != 4 || r.TopXID != 777 || r.ImageBytes() != 8000 {
		t.Errorf("main data %q, origin %d, top transaction %d, %d bytes of images", r.Main, r.Origin, r.TopXID, r.ImageBytes())
	}
	const want = "desc: HOT_UPDATE, blkref #0: rel 1663/5/16384 blk 7, blkref #1: rel 1663/5/16384 fork vm blk 8, blkref #5: rel 1664/0/1262 blk 9 FPW"
	if !strings.HasSuffix(r.String(), want) {
		t.Errorf("String() = %q, want it to end with %q", r, want)
	}
	if e := r.Entry(); e.Relation.File != blocks[0].File || e.Relation.Fork != wal.MainFork || e.TxnID != 778 || e.Operation != "HOT_UPDATE" || !e.Timestamp.IsZero() {
		t.Errorf("Entry() = %+v", e)
	}
}

// image is a record with one image of a page.
func image(info uint8, length, hole uint16, more ...byte) walfake.Record {
	return walfake.Record{Manager: wal.ManagerXLOG, Info: 0xB0, Body: le(
		0, 0x10, uint16(0), length, hole, int(info), more, uint32(1663), uint32(5), uint32(1), uint32(0), make([]byte, length))}
}

func TestImagesAreReadAsTheirVersionWritesThem(t *testing.T) {
	for name, tt := range map[string]struct {
		since, until int
		record       walfake.Record
		compression  wal.Compression
		apply        bool
		hole         uint16
	}{
		"13, whole":              {13, 14, image(0x04, 8192, 0), wal.Uncompressed, true, 0},
		"13, hole":               {13, 14, image(0x05, 8000, 24), wal.Uncompressed, true, 192},
		"13, compressed":         {13, 14, image(0x06, 90, 0), wal.PGLZ, true, 0},
		"13, compressed, hole":   {13, 14, image(0x03, 90, 24, 100, 0), wal.PGLZ, false, 100},
		"15, whole":              {15, 18, image(0x02, 8192, 0), wal.Uncompressed, true, 0},
		"15, hole":               {15, 18, image(0x01, 8000, 24), wal.Uncompressed, false, 192},
		"15, pglz":               {15, 18, image(0x06, 90, 0), wal.PGLZ, true, 0},
		"15, LZ4, hole":          {15, 18, image(0x0B, 90, 24, 100, 0), wal.LZ4, true, 100},
		"15, Zstandard, no hole": {15, 18, image(0x12, 90, 0), wal.Zstd, true, 0},
	} {
		for version := tt.since; version <= tt.until; version++ {
			r, err := one(t, version, tt.record)
			if err != nil || r == nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if b := r.Blocks()[0]; b.Compression != tt.compression || b.Apply != tt.apply || b.HoleLength != tt.hole {
				t.Errorf("%s: read by PostgreSQL %d as compression %d, apply %v, hole of %d; want %d, %v, %d",
					name, version, b.Compression, b.Apply, b.HoleLength, tt.compression, tt.apply, tt.hole)
			}
		}
	}
}

func TestBodiesThatContradictThemselvesAreRefused(t *testing.T) {
	block := func(id, flags int, length uint16) []byte {
		return le(id, flags, length, uint32(1663), uint32(5), uint32(1), uint32(0))
	}
	for name, tt := range map[string]struct {
		body []byte
		want string
	}{
		"block of no number":       {block(33, 0, 0), "invalid block_id 33"},
		"blocks in disorder":       {le(block(1, 0, 0), block(1, 0, 0)), "out-of-order block_id 1"},
		"data that is not flagged": {le(block(0, 0, 1), 9), "block 0 announces 1 bytes"},
		"flag without data":        {block(0, 0x20, 0), "block 0 announces 0 bytes"},
		"relation as before none":  {le(0, 0x80, uint16(0), uint32(0)), "BKPBLOCK_SAME_REL set but no previous rel"},
		"less than announced":      {le(255, 9, 1), "record with invalid length"},
		"more than announced":      {le(255, 1, 1, 1, 1, 1), "record with invalid length"},
		"much more announced":      {le(254, uint32(1<<31)), "record with invalid length"},
		"half a block":             {block(0, 0, 0)[:9], "record with invalid length"},
		"hole of nothing":          {image(0x03, 8192, 24).Body, "BKPIMAGE_HAS_HOLE set"},
		"hole at the beginning":    {image(0x03, 8000, 0).Body, "BKPIMAGE_HAS_HOLE set"},
		"hole that is not flagged": {image(0x02, 8000, 0).Body, "BKPIMAGE_HAS_HOLE not set"},
		"compressed to a page":     {image(0x06, 8192, 0).Body, "BKPIMAGE_COMPRESSED set"},
		"image beyond a page":      {image(0x02, 9000, 0).Body, "BKPIMAGE"},
	} {
		_, err := one(t, 15, walfake.Record{Manager: wal.ManagerXLOG, Info: 0xB0, Body: tt.body})
		damage, ok := errors.AsType[*wal.CorruptError](err)
		if !ok || damage.LSN != begin+40 || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := one(t, 13, walfake.Record{Body: le(252, uint32(7))}); err == nil {
		t.Error("PostgreSQL 13 does not know the top transaction, and its record is read")
	}
}

func TestTheEndOfATransactionSaysWhenAndWhose(t *testing.T) {
	const µs = int64(837_000_000_123_456) // of 2026
	when := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(µs) * time.Microsecond)
	files := le(uint32(1), uint32(1663), uint32(5), uint32(9))
	inval := le(uint32(1), make([]byte, 16))
	for name, tt := range map[string]struct {
		version int
		info    uint8
		main    []byte
		want    wal.TransactionEnd
		subs    []uint32
	}{
		"commit": {15, 0x00, le(µs), wal.TransactionEnd{Committed: true, XID: 700}, nil},
		"abort":  {15, 0x20, le(µs), wal.TransactionEnd{XID: 700}, nil},
		"commit with all": {
			13, 0x80, le(µs, uint32(1|2|4|8), uint32(5), uint32(1663), uint32(2), uint32(701), uint32(702), files, inval),
			wal.TransactionEnd{Committed: true, XID: 700, Database: 5},
			[]uint32{701, 702},
		},
		"commit prepared, 15": {
			15, 0xB0, le(µs, uint32(4|8|16|256), files, uint32(1), make([]byte, 12), inval, uint32(650)),
			wal.TransactionEnd{Committed: true, Prepared: true, XID: 650},
			nil,
		},
		"abort prepared, 18": {
			18, 0xC0, le(µs, uint32(16|128|256), uint32(1), make([]byte, 16), uint32(651), []byte("gid\x00")),
			wal.TransactionEnd{Prepared: true, XID: 651},
			nil,
		},
	} {
		r, err := one(t, tt.version, walfake.Record{XID: 700, Manager: wal.ManagerTransaction, Info: tt.info, Body: walfake.Main(tt.main)})
		if err != nil || r == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, ok := r.TransactionEnd()
		if !ok || got.Committed != tt.want.Committed || got.Prepared != tt.want.Prepared || got.XID != tt.want.XID || got.Database != tt.want.Database || !got.Time.Equal(when) {
			t.Errorf("%s: TransactionEnd() = %+v, %v; want %+v at %v", name, got, ok, tt.want, when)
		}
		if subs := slices.Collect(got.Subtransactions()); !slices.Equal(subs, tt.subs) {
			t.Errorf("%s: subtransactions %v, want %v", name, subs, tt.subs)
		}
		if e := r.Entry(); !e.Timestamp.Equal(when) || e.TxnID != tt.want.XID || r.IsCommit() != tt.want.Committed {
			t.Errorf("%s: Entry() = %+v", name, e)
		}
	}
	for name, r := range map[string]walfake.Record{
		"prepare":   {Manager: wal.ManagerTransaction, Info: 0x10, Body: walfake.Main(le(µs))},
		"insert":    {Manager: wal.ManagerHeap, Body: walfake.Main(le(µs))},
		"too short": {Manager: wal.ManagerTransaction, Body: walfake.Main([]byte{1})},
		"too many":  {Manager: wal.ManagerTransaction, Info: 0x80, Body: walfake.Main(le(µs, uint32(2), uint32(1<<31)))},
	} {
		if r, err := one(t, 15, r); err != nil || r == nil {
			t.Errorf("%s: %v", name, err)
		} else if end, ok := r.TransactionEnd(); ok {
			t.Errorf("%s: TransactionEnd() = %+v, want none", name, end)
		}
	}
}

func TestManagersOfExtensionsAreKnownByNumberSincePostgreSQL15(t *testing.T) {
	custom := walfake.Record{Manager: 128, Info: 0x30, Body: walfake.Main([]byte{1})}
	if r, err := one(t, 15, custom); err != nil || r.Manager.String() != "custom128" || r.Operation() != "UNKNOWN (30)" {
		t.Errorf("PostgreSQL 15: %v, %v", r, err)
	}
	if r, err := one(t, 14, custom); err == nil {
		t.Errorf("PostgreSQL 14: %v, want an error", r)
	}
}

func TestRecordsThatEndALogAreTold(t *testing.T) {
	for name, tt := range map[string]struct {
		manager                  wal.Manager
		info                     uint8
		shutdown, change, commit bool
	}{
		"shutdown checkpoint": {wal.ManagerXLOG, 0x00, true, false, false},
		"online checkpoint":   {wal.ManagerXLOG, 0x10, false, false, false},
		"switch":              {wal.ManagerXLOG, 0x40, false, true, false},
		"commit":              {wal.ManagerTransaction, 0x00, false, false, true},
		"abort":               {wal.ManagerTransaction, 0x20, false, false, false},
		"delete":              {wal.ManagerHeap, 0x10, false, false, false},
	} {
		r, err := one(t, 17, walfake.Record{Manager: tt.manager, Info: tt.info, Body: walfake.Main(make([]byte, 8))})
		if err != nil || r.IsShutdown() != tt.shutdown || r.IsSwitch() != tt.change || r.IsCommit() != tt.commit {
			t.Errorf("%s: shutdown %v, switch %v, commit %v; %v", name, r.IsShutdown(), r.IsSwitch(), r.IsCommit(), err)
		}
	}
}
