package walbench

import (
	"context"
	"errors"
	"fmt"
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

// memory tells what a relay needs for subscribers that have everything.
func (b *bench) memory(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	const buffer = 64 << 20
	r, err := startRelay(ctx, relayRequest{Name: "relay", Source: conninfo(c.Primary(), "relay"), Buffer: buffer})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	count, size := 1000, int64(128<<20)
	if b.Short {
		count, size = 50, 1<<20
	}
	used := func(of string) (float64, error) {
		n, err := memoryOf(r.pid())
		if err == nil {
			b.add("memory", fmt.Sprintf("wal_buffer_size %d MiB", buffer>>20), of, Figure{Unit: "MiB resident", Value: float64(n) / (1 << 20)})
		}
		return float64(n), err
	}
	if _, err := used("at the start"); err != nil {
		return nil // it is not known here
	}
	full := func() (wal.LSN, error) {
		_, to, err := b.grow(ctx, c.Primary(), size)
		if err != nil {
			return 0, err
		}
		return to, r.awaitHead(ctx, to)
	}
	if _, err := full(); err != nil {
		return err
	}
	before, err := used("the buffer full")
	if err != nil {
		return err
	}
	d, err := startDrain(ctx, drainOpen{Source: r.conninfo(clientName), Count: count})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	at, err := written(ctx, c.Primary())
	if err != nil {
		return err
	}
	if err := d.await(ctx, at); err != nil {
		return err
	}
	after, err := used(fmt.Sprintf("and %d subscribers", count))
	if err != nil {
		return err
	}
	to, err := full()
	if err != nil {
		return err
	}
	if err := d.await(ctx, to); err != nil {
		return err
	}
	last, err := used("and as much WAL again, sent to all")
	b.report.want("memory for each idle subscriber", true, 64, "KiB", max((after-before)/float64(count)/1024, 0.001))
	b.report.want("memory for each subscriber after WAL for all", true, 64, "KiB", max((last-before)/float64(count)/1024, 0.001))
	b.report.want("memory before any subscriber, buffer included", true, buffer>>20+32, "MiB", before/(1<<20))
	return err
}
