package walbench

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// The slow link.
const (
	slowRate  = 200e6 / 8 // bytes a second
	slowDelay = 10 * time.Millisecond
)

const (
	pathRaw = "two relays"
	pathLZ4 = "two relays, LZ4"
)

// slow sends WAL over a slow link: by PostgreSQL's own protocol, and between two
// relays, with and without LZ4.
func (b *bench) slow(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, map[string]string{"synchronous_commit": "off"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	near, err := startRelay(ctx, relayRequest{Name: "near", Source: conninfo(c.Primary(), "near"), Buffer: 1 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.close()) }()
	link, err := pgtest.StartProxy(near.addr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	link.Delay(slowDelay)
	link.Rate(slowRate)
	kinds, err := b.olderKinds(ctx, c.Primary(), near)
	if err != nil {
		return err
	}
	far := *near
	if far.port, err = portOf(link.Addr()); err != nil {
		return err
	}
	for _, k := range kinds {
		pull := drainOpen{Count: 1, From: k.from, Every: 1 << 18}
		paths := []path{
			{pathDirect, func(ctx context.Context) (measure, error) { return onlyRate(pulled(ctx, nil, &far, pull, k.to)) }},
			{pathRaw, func(ctx context.Context) (measure, error) { return overLink(ctx, &far, true, pull, k.to) }},
			{pathLZ4, func(ctx context.Context) (measure, error) { return overLink(ctx, &far, false, pull, k.to) }},
		}
		if err := b.turns(ctx, "slow", k.name, []string{unitRate}, paths, nil); err != nil {
			return err
		}
		b.report.want("slow link, "+k.name+": LZ4 of raw", false, 2, "×", b.report.find("slow", k.name, pathLZ4, unitRate).Ratio)
	}
	return nil
}

// overLink has a client take WAL from a relay that has to get it over the link.
func overLink(ctx context.Context, far *relayProcess, raw bool, o drainOpen, to wal.LSN) (m measure, err error) {
	r, err := startRelay(ctx, relayRequest{Name: "far", Source: far.conninfo("far"), Buffer: 64 << 20, Raw: raw})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return onlyRate(pulled(ctx, nil, r, o, to))
}

// onlyRate leaves out the processor time: of what waits for a link it says nothing.
func onlyRate(m measure, err error) (measure, error) {
	return measure{unitRate: m[unitRate]}, err
}

// A kind is WAL of one sort.
type kind struct {
	name     string
	from, to wal.LSN
}

// kinds has the primary write WAL of several sorts.
func (b *bench) kinds(ctx context.Context, n *pgtest.Node) ([]kind, error) {
	scale, load := 8, 4*b.turn()
	rows := 400_000
	if b.Short {
		scale, rows, load = 1, 20_000, time.Second
	}
	bench := func(args ...string) func() error {
		return func() error {
			_, err := pgbench(ctx, n, args...)
			return err
		}
	}
	prepare := func() error {
		if _, err := pgbench(ctx, n, "-i", "-q", "-s", "2"); err != nil {
			return err
		}
		return n.Exec(ctx, "CHECKPOINT")
	}
	var of []kind
	for _, k := range []struct {
		name        string
		before, run func() error
	}{
		{"COPY", nil, bench("-i", "-q", "-s", strconv.Itoa(scale))},
		{"TPC-B with page images", func() error { return n.Exec(ctx, "CHECKPOINT") }, bench("-n", "-c", "4", "-T", seconds(load))},
		{"TPC-B, steady", func() error { return errors.Join(prepare(), bench("-n", "-c", "4", "-T", seconds(2*load))()) }, bench("-n", "-c", "4", "-T", seconds(load))},
		{"rows of text", func() error { return n.Exec(ctx, "CREATE TABLE IF NOT EXISTS texts (id bigint, body text)") }, func() error {
			return n.Exec(ctx, "INSERT INTO texts SELECT i, md5(i::text) || md5((-i)::text) FROM generate_series(1, $1) i", rows)
		}},
	} {
		if k.before != nil {
			if err := k.before(); err != nil {
				return nil, err
			}
		}
		from, err := written(ctx, n)
		if err != nil {
			return nil, err
		}
		if err := k.run(); err != nil {
			return nil, err
		}
		to, err := written(ctx, n)
		if err != nil {
			return nil, err
		}
		of = append(of, kind{k.name, from &^ (wal.PageSize - 1), to})
	}
	return of, nil
}

// olderKinds is kinds, with so much behind them that a relay which starts then has
// nothing of them.
func (b *bench) olderKinds(ctx context.Context, n *pgtest.Node, near *relayProcess) ([]kind, error) {
	of, err := b.kinds(ctx, n)
	if err != nil {
		return nil, err
	}
	const segment = 16 << 20
	_, to, err := b.grow(ctx, n, segment)
	if err != nil {
		return nil, err
	}
	return of, near.awaitHead(ctx, to)
}

// compression tells how much smaller WAL becomes between two relays: what was
// there already, in full frames, and what comes as it is written.
func (b *bench) compression(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, map[string]string{"synchronous_commit": "off"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	near, err := startRelay(ctx, relayRequest{Name: "near", Source: conninfo(c.Primary(), "near"), Buffer: 1 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.close()) }()
	kinds, err := b.olderKinds(ctx, c.Primary(), near)
	if err != nil {
		return err
	}
	far, err := startRelay(ctx, relayRequest{Name: "far", Source: near.conninfo("far"), Buffer: 4 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.close()) }()
	for _, k := range kinds {
		ratio, err := compressed(ctx, near, func() error {
			_, err := pulled(ctx, nil, far, drainOpen{Count: 1, From: k.from, Every: 1 << 20}, k.to)
			return err
		})
		if err != nil {
			return err
		}
		b.add("compression", k.name, "frames of 64 KiB", Figure{Unit: "raw/LZ4", Value: ratio}, Figure{Unit: "MB of WAL", Value: float64(k.to-k.from) / mega})
	}
	ratio, err := compressed(ctx, near, func() error {
		_, err := pgbench(ctx, c.Primary(), "-n", "-c", "4", "-T", seconds(b.turn()))
		return err
	})
	b.add("compression", "TPC-B, steady", "as it is written", Figure{Unit: "raw/LZ4", Value: ratio})
	return err
}

// compressed returns the ratio of what a relay compresses during something.
func compressed(ctx context.Context, r *relayProcess, do func() error) (float64, error) {
	before, err := r.status(ctx)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := r.status(ctx)
	if err != nil {
		return 0, err
	}
	return float64(after.FrameBytes-before.FrameBytes) / float64(max(1, after.CompressedBytes-before.CompressedBytes)), nil
}
