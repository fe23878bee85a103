package walbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// Units of processor time.
const (
	unitRate   = "MB/s"
	unitSender = "sender CPU-s/GB" // of the walsenders, or the relay that takes their place
	unitRelay  = "relays CPU-s/GB"
	unitClient = "client CPU-s/GB"
)

// Names of paths.
const (
	pathDirect  = "direct"
	pathCascade = "cascading standby"
	pathRelay   = "relay"
	pathTwo     = "two relays, LZ4"
)

// clientName is the application_name of the clients.
const clientName = "bench_client"

// fanout sends WAL that is in memory to many clients at once.
func (b *bench) fanout(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := startRelay(ctx, relayRequest{Name: "relay", Source: conninfo(c.Primary(), "relay"), Buffer: 1 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	total, most := int64(2<<30), int64(128<<20)
	if b.Short {
		total, most = 32<<20, 16<<20
	}
	_, to, err := b.grow(ctx, c.Primary(), most)
	if err != nil {
		return err
	}
	if err := r.awaitHead(ctx, to); err != nil {
		return err
	}
	for _, n := range b.Subscribers {
		of := fmt.Sprintf("%d subscribers", n)
		from := (to - wal.LSN(min(most, total/int64(n)))) &^ (wal.PageSize - 1) //nolint:gosec // positive
		pull := drainOpen{Count: n, From: from, Every: 1 << 20}
		paths := []path{
			{pathDirect, func(ctx context.Context) (measure, error) { return pulled(ctx, c.Primary(), nil, pull, to) }},
			{pathRelay, func(ctx context.Context) (measure, error) { return pulled(ctx, nil, r, pull, to) }},
		}
		if err := b.turns(ctx, "fanout", of, []string{unitRate, unitSender, unitClient}, paths, nil); err != nil {
			return err
		}
		b.report.want(fmt.Sprintf("fanout to %d: sender's CPU of the walsenders'", n), true, 0.4, "×", b.report.find("fanout", of, pathRelay, unitSender).Ratio)
	}
	return nil
}

// pulled has clients take the WAL up to to from a server or a relay.
func pulled(ctx context.Context, n *pgtest.Node, r *relayProcess, o drainOpen, to wal.LSN) (m measure, err error) {
	if r != nil {
		o.Source = r.conninfo(clientName)
	} else {
		o.Source = conninfo(n, clientName)
	}
	d, err := startDrain(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	parts := map[string][]int{unitClient: {d.pid()}}
	if r != nil {
		parts[unitSender] = []int{r.pid()}
	} else if parts[unitSender], err = senders(ctx, n, clientName); err != nil {
		return nil, err
	}
	m = measure{}
	bytes := float64(to-o.From) * float64(o.Count)
	err = metered(m, bytes/giga, parts, func() error {
		begun := time.Now()
		if err := d.start(ctx); err != nil {
			return err
		}
		if o.Count == 1 { // how long it takes to connect, over a slow link, is not the rate
			if err := d.await(ctx, o.From+1); err != nil {
				return err
			}
			begun = time.Now()
		}
		err := d.await(ctx, to)
		m[unitRate] = bytes / mega / time.Since(begun).Seconds()
		return err
	})
	return m, err
}

// live has a load run on the primary while many clients follow it.
func (b *bench) live(ctx context.Context) (err error) {
	c, err := b.start(ctx, 0, durable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if _, err := pgbench(ctx, c.Primary(), "-i", "-q", "-s", "10"); err != nil {
		return err
	}
	r, err := startRelay(ctx, relayRequest{Name: "relay", Source: conninfo(c.Primary(), "relay"), Buffer: 256 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	const none = "nobody"
	for _, n := range b.Subscribers {
		followed := func(name string) path {
			return path{name, func(ctx context.Context) (measure, error) { return b.followed(ctx, c.Primary(), r, name, n) }}
		}
		of := fmt.Sprintf("%d subscribers", n)
		paths := []path{followed(pathDirect), followed(pathRelay), followed(none)}
		if err := b.turns(ctx, "live", of, []string{unitTPS, unitCPU}, paths, nil); err != nil {
			return err
		}
		if n == b.Subscribers[len(b.Subscribers)-1] {
			b.report.want(fmt.Sprintf("live: tps of the primary with %d", n), false, 2, "×", b.report.find("live", of, pathRelay, unitTPS).Ratio)
		}
	}
	return nil
}

const (
	unitTPS = "tps"
	unitCPU = "sender CPU-µs/transaction"
)

// followed runs a load while clients follow the primary: itself, through the
// relay, or not at all; then the relay stands still.
func (b *bench) followed(ctx context.Context, primary *pgtest.Node, r *relayProcess, how string, count int) (m measure, err error) {
	o := drainOpen{Count: count, Source: conninfo(primary, clientName)}
	if how == pathRelay {
		o.Source = r.conninfo(clientName)
	} else {
		if err := r.freeze(); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.catchUp(ctx, primary, r)) }()
	}
	var pids []int
	if how == pathDirect || how == pathRelay {
		d, err := startDrain(ctx, o)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, d.close()) }()
		if err := d.start(ctx); err != nil {
			return nil, err
		}
		if pids, err = senders(ctx, primary, clientName); err != nil {
			return nil, err
		}
	}
	if how == pathRelay {
		pids = []int{r.pid()}
	}
	m = measure{}
	length := b.turn()
	err = metered(m, 1, map[string][]int{unitCPU: pids}, func() error {
		out, err := pgbench(ctx, primary, "-c", "4", "-n", "-T", seconds(length))
		if err != nil {
			return err
		}
		m[unitTPS], err = tpsOf(out)
		return err
	})
	if m[unitCPU] == 0 {
		delete(m, unitCPU)
	} else {
		m[unitCPU] *= 1e6 / (m[unitTPS] * length.Seconds())
	}
	return m, err
}

// turn is how long a load runs at a time.
func (b *bench) turn() time.Duration {
	if b.Short {
		return time.Second
	}
	return max(3*time.Second, min(10*time.Second, b.Duration/6))
}

// catchUp lets a relay go on and returns when it has what it missed.
func (b *bench) catchUp(ctx context.Context, primary *pgtest.Node, relays ...*relayProcess) error {
	at, err := written(ctx, primary)
	if err != nil {
		return err
	}
	for _, r := range relays {
		if err := r.thaw(); err != nil {
			return err
		}
		if err := r.awaitHead(ctx, at); err != nil {
			return err
		}
	}
	return nil
}
