package walbench

import (
	"context"
	"errors"
	"fmt"

	"github.com/heliosdb/helios/internal/pgtest"
)

const (
	memoryBuffer = 64 << 20
	unitMemory   = "MiB resident"
)

// memory tells what a relay needs for subscribers that have everything.
func (b *bench) memory(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := startRelay(ctx, relayRequest{Name: "relay", Source: conninfo(c.Primary(), "relay"), Buffer: memoryBuffer})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if _, err := memoryOf(r.pid()); err != nil {
		return nil // it is not known here
	}
	count, size := 1000, int64(2*memoryBuffer)
	if b.Short {
		count, size = 50, 1<<20
	}
	_, to, err := b.grow(ctx, c.Primary(), size)
	if err != nil {
		return err
	}
	if err := r.awaitHead(ctx, to); err != nil {
		return err
	}
	return b.crowd(ctx, c.Primary(), r, count)
}

// crowd has many clients follow a relay whose buffer is full.
func (b *bench) crowd(ctx context.Context, primary *pgtest.Node, r *relayProcess, count int) (err error) {
	before, err := b.resident(r, "the buffer full")
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
	reached := func() error {
		to, err := written(ctx, primary)
		if err != nil {
			return err
		}
		return d.await(ctx, to)
	}
	if err := reached(); err != nil {
		return err
	}
	idle, err := b.resident(r, fmt.Sprintf("and %d subscribers", count))
	if err != nil {
		return err
	}
	if err := primary.Exec(ctx, "INSERT INTO bulk SELECT i, md5(i::text) FROM generate_series(1, 20000) i"); err != nil {
		return err
	}
	if err := reached(); err != nil {
		return err
	}
	busy, err := b.resident(r, "and some WAL for all")
	if err != nil {
		return err
	}
	each := func(now float64) float64 { return max((now-before)/float64(count)/1024, 0.001) }
	b.report.want("memory, the buffer included, before any subscriber", true, memoryBuffer>>20+32, "MiB", before/(1<<20))
	b.report.want("memory for each idle subscriber", true, 64, "KiB", each(idle))
	b.report.want("memory for each subscriber after some WAL for all", true, 64, "KiB", each(busy))
	return nil
}

// resident takes down how much memory the relay has in use, and returns it in
// bytes.
func (b *bench) resident(r *relayProcess, when string) (float64, error) {
	n, err := memoryOf(r.pid())
	if err == nil {
		b.add("memory", fmt.Sprintf("wal_buffer_size %d MiB", memoryBuffer>>20), when, Figure{Unit: unitMemory, Value: float64(n) / (1 << 20)})
	}
	return float64(n), err
}
