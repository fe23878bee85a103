package walbench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

const (
	pathBackfill = "relay, from its source"
	unitRecords  = "records/s"
)

// chain is relays behind one another, and a client behind the last.
type chain struct {
	name   string
	relays []*relayProcess
	client *drain
	feeder []int // the primary's walsenders that serve it
}

// chainBuffer is small against what is missed, so that it is full soon: memory
// that is written to for the first time costs several times what it costs later,
// and a relay that has run for an hour does not know that cost.
const chainBuffer = 128 << 20

// startChain starts so many relays and a client that follows the last.
func startChain(ctx context.Context, name string, primary *pgtest.Node, count int, o drainOpen) (_ *chain, err error) {
	c := &chain{name: name}
	source := conninfo(primary, "chain")
	for range count {
		r, err := startRelay(ctx, relayRequest{Name: chainName(name), Source: source, Buffer: chainBuffer})
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.relays = append(c.relays, r)
		source = r.conninfo("chain")
	}
	o.Source, o.Count = source, 1
	if c.client, err = startDrain(ctx, o); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := c.client.start(ctx); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if c.feeder, err = senders(ctx, primary, chainName(name)); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// chainName is what the relays of a chain call themselves.
func chainName(name string) string {
	return strings.NewReplacer(" ", "_", ",", "").Replace(name)
}

func (c *chain) close() error {
	errs := []error{c.refill()}
	if c.client != nil {
		errs = append(errs, c.client.close())
	}
	for _, r := range slices.Backward(c.relays) {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// each does something with every process of the chain.
func (c *chain) each(do func(*child) error) error {
	errs := []error{do(c.client.child)}
	for _, r := range c.relays {
		errs = append(errs, do(r.child))
	}
	return errors.Join(errs...)
}

func (c *chain) thaw() error { return c.each((*child).thaw) }

// starve has the primary send nothing to the chain; refill has it go on. The
// walsender stands still, not who receives: a connection whose receiver sleeps
// with full buffers loses packets, and may take seconds to find that out when it
// wakes.
func (c *chain) starve() error { return c.signal(syscall.SIGSTOP) }
func (c *chain) refill() error { return c.signal(syscall.SIGCONT) }

func (c *chain) signal(s syscall.Signal) error {
	for _, pid := range c.feeder {
		if err := syscall.Kill(pid, s); err != nil {
			return err
		}
	}
	return nil
}

// pids returns the numbers of the relays' processes.
func (c *chain) pids() []int {
	var pids []int
	for _, r := range c.relays {
		pids = append(pids, r.pid())
	}
	return pids
}

// catchup measures how fast somebody gets what he missed: from the primary, from
// a cascading standby, and through relays that have missed it as well.
func (b *bench) catchup(ctx context.Context) (err error) {
	c, err := b.start(ctx, 1, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	u := &catchup{b: b, primary: c.Primary(), standby: c.Replicas()[0], size: 512 << 20}
	if b.Short {
		u.size = 16 << 20
	}
	defer func() { err = errors.Join(err, u.close()) }()
	for name, count := range map[string]int{pathRelay: 1, pathTwo: 2} {
		chain, err := startChain(ctx, name, u.primary, count, drainOpen{Every: 1 << 20})
		if err != nil {
			return err
		}
		u.chains = append(u.chains, chain)
	}
	paths := []path{
		{pathDirect, func(ctx context.Context) (measure, error) {
			return u.counted(pulled(ctx, u.primary, nil, drainOpen{Count: 1, From: u.from, Every: 1 << 20}, u.to))
		}},
		{pathCascade, func(ctx context.Context) (measure, error) {
			return u.counted(pulled(ctx, u.standby, nil, drainOpen{Count: 1, From: u.from, Every: 1 << 20}, u.to))
		}},
		{pathRelay, u.through(pathRelay)},
		{pathBackfill, u.backfill},
		{pathTwo, u.through(pathTwo)},
	}
	units := []string{unitRate, unitRecords, unitSender, unitRelay, unitClient}
	if err := u.fill(ctx); err != nil {
		return err
	}
	if err := b.turns(ctx, "catchup", "", units, paths, u.miss); err != nil {
		return err
	}
	found := func(path string) float64 { return b.report.find("catchup", "", path, unitRate).Ratio }
	b.report.want("catch-up through one relay, of direct", false, 0.8, "×", found(pathRelay))
	b.report.want("catch-up from one relay that asks its source", false, 0.8, "×", found(pathBackfill))
	b.report.want("catch-up through two relays with LZ4, of direct", false, 0.5, "×", found(pathTwo))
	return nil
}

// catchup is what goes on from round to round.
type catchup struct {
	b                *bench
	primary, standby *pgtest.Node
	size             int64
	from, to         wal.LSN
	records          int64 // from from to to
	chains           []*chain
}

func (u *catchup) close() error {
	var errs []error
	for _, c := range u.chains {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// miss has the primary write while the relays are sent nothing.
func (u *catchup) miss(ctx context.Context) error {
	for _, c := range u.chains {
		if err := c.starve(); err != nil {
			return err
		}
	}
	before, err := recordsOf(ctx, u.primary)
	if err != nil {
		return err
	}
	if u.from, u.to, err = u.b.grow(ctx, u.primary, u.size); err != nil {
		return err
	}
	u.from &^= wal.PageSize - 1
	if u.records, err = recordsOf(ctx, u.primary); err != nil {
		return err
	}
	u.records -= before
	return u.standby.WaitReplayed(ctx, u.to)
}

// fill has the relays' buffers filled before anything is measured.
func (u *catchup) fill(ctx context.Context) error {
	_, to, err := u.b.grow(ctx, u.primary, min(u.size, chainBuffer))
	if err != nil {
		return err
	}
	for _, c := range u.chains {
		if err := c.client.await(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

// recordsOf returns how many records a server has written.
func recordsOf(ctx context.Context, n *pgtest.Node) (int64, error) {
	// Sessions report when they end, others see it a little later.
	if err := n.Exec(ctx, "SELECT pg_stat_force_next_flush()"); err != nil {
		return pgtest.Value[int64](ctx, n, "SELECT wal_records FROM pg_stat_wal")
	}
	return pgtest.Value[int64](ctx, n, "SELECT wal_records FROM pg_stat_wal")
}

// counted adds the records to a measure of bytes.
func (u *catchup) counted(m measure, err error) (measure, error) {
	if err == nil {
		m[unitRecords] = m[unitRate] * mega / float64(u.to-u.from) * float64(u.records)
	}
	return m, err
}

// through lets the chain of that name go on.
func (u *catchup) through(name string) func(context.Context) (measure, error) {
	return func(ctx context.Context) (measure, error) {
		var c *chain
		for _, one := range u.chains {
			if one.name == name {
				c = one
			}
		}
		bytes := float64(u.to - u.from)
		m := measure{}
		parts := map[string][]int{unitRelay: c.pids(), unitClient: {c.client.pid()}}
		err := metered(m, bytes/giga, parts, func() error {
			begun := time.Now()
			if err := c.refill(); err != nil {
				return err
			}
			err := c.client.await(ctx, u.to)
			m[unitRate] = bytes / mega / time.Since(begun).Seconds()
			return err
		})
		return u.counted(m, err)
	}
}

// backfill has a relay that has just started, and so has nothing of what was
// missed, get it for its client.
func (u *catchup) backfill(ctx context.Context) (m measure, err error) {
	r, err := startRelay(ctx, relayRequest{Name: "late", Source: conninfo(u.primary, "late"), Buffer: 64 << 20})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	m, err = pulled(ctx, nil, r, drainOpen{Count: 1, From: u.from, Every: 1 << 20}, u.to)
	if err == nil {
		m[unitRelay] = m[unitSender]
		delete(m, unitSender)
	}
	return u.counted(m, err)
}
