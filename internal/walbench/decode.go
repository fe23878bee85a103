package walbench

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

const (
	unitRecordsCore = "records/CPU-s"
	unitRateCore    = "MB/CPU-s"
	unitRecordSize  = "B/record"
)

// decode reads records, with their checksums, in this process.
func (b *bench) decode(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, map[string]string{"synchronous_commit": "off"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	kinds, err := b.kinds(ctx, c.Primary())
	if err != nil {
		return err
	}
	for _, k := range kinds {
		data, err := fetch(ctx, conninfo(c.Primary(), clientName), k.from, k.to)
		if err != nil {
			return err
		}
		paths := []path{{"package wal", func(context.Context) (measure, error) { return decoded(k.from, data) }}}
		if err := b.turns(ctx, "decode", k.name, []string{unitRecordsCore, unitRateCore, unitRecordSize}, paths, nil); err != nil {
			return err
		}
		got := b.report.find("decode", k.name, "package wal", unitRecordsCore)
		b.report.want("decoder, "+k.name, false, 2e6, unitRecordsCore, got.Value)
	}
	return nil
}

// fetch reads WAL into memory.
func fetch(ctx context.Context, source string, from, to wal.LSN) ([]byte, error) {
	cfg, err := pgconn.ParseConfig(source)
	if err != nil {
		return nil, err
	}
	client, err := replication.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()                                      //nolint:errcheck // read what it had
	defer context.AfterFunc(ctx, func() { client.Close() })() //nolint:errcheck // ends the read
	if _, _, err := client.Start(ctx, "", from, 0, ""); err != nil {
		return nil, err
	}
	data := make([]byte, 0, to-from)
	for len(data) < cap(data) {
		e, err := client.Next()
		if err != nil {
			return nil, err
		}
		if e.Kind != replication.KindData {
			continue
		}
		n := min(e.Size, cap(data)-len(data))
		if _, err := io.ReadFull(client, data[len(data):len(data)+n]); err != nil {
			return nil, err
		}
		data = data[:len(data)+n]
	}
	return data, nil
}

// decoded decodes data in pieces as they come over the wire, again and again,
// for a fifth of a second.
func decoded(from wal.LSN, data []byte) (measure, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begun, err := threadTime()
	if err != nil {
		return measure{}, nil // it is not known here
	}
	var records, bytes float64
	var took time.Duration
	for took < 200*time.Millisecond {
		n, err := decodeOnce(from, data)
		if err != nil {
			return nil, err
		}
		records += float64(n)
		bytes += float64(len(data))
		now, err := threadTime()
		if err != nil {
			return nil, err
		}
		took = now - begun
	}
	return measure{unitRecordsCore: records / took.Seconds(), unitRateCore: bytes / mega / took.Seconds(), unitRecordSize: bytes / records}, nil
}

func decodeOnce(from wal.LSN, data []byte) (int, error) {
	const piece = 128 << 10
	d := wal.NewDecoder(from)
	records := 0
	for len(data) > 0 {
		n := min(piece, len(data))
		d.Feed(data[:n])
		data = data[n:]
		for r := d.Next(); r != nil; r = d.Next() {
			records++
		}
		if err := d.Err(); err != nil {
			return 0, err
		}
	}
	if records == 0 {
		return 0, errors.New("no record was found")
	}
	return records, nil
}
