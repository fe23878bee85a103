package walbench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// idle tells what a relay costs while nothing is written.
func (b *bench) idle(ctx context.Context) (err error) {
	c, err := b.start(ctx, 1, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := startRelay(ctx, relayRequest{Name: "relay", Source: conninfo(c.Primary(), "relay"), Buffer: 64 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	standby := c.Replicas()[0]
	if err := standby.Server().Configure(ctx, map[string]string{"primary_conninfo": r.conninfo(standby.Name)}); err != nil {
		return err
	}
	if err := c.Primary().Exec(ctx, "CREATE TABLE written ()"); err != nil {
		return err
	}
	at, err := written(ctx, c.Primary())
	if err != nil {
		return err
	}
	if err := standby.WaitReplayed(ctx, at); err != nil {
		return err
	}
	length := max(10*time.Second, b.Duration)
	if b.Short {
		length = time.Second
	}
	m := measure{}
	const unit = "% of a core"
	err = metered(m, length.Seconds()/100, map[string][]int{unit: {r.pid()}}, func() error {
		wait := time.NewTimer(length)
		defer wait.Stop()
		select {
		case <-wait.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	b.add("idle", "one standby", pathRelay, Figure{Unit: unit, Value: m[unit]})
	b.report.want("idle relay with one standby", true, 0.5, unit, m[unit])
	return err
}

const (
	unitP50 = "ms p50"
	unitP99 = "ms p99"
)

// latency tells how long after a commit was sent its WAL is at a client, and its
// row is seen on a standby. Whose turn it is not stands still, relays included.
func (b *bench) latency(ctx context.Context) (err error) {
	c, err := b.start(ctx, 3, durable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Primary().Exec(ctx, "CREATE TABLE commits (id bigint)"); err != nil {
		return err
	}
	l := &lanes{b: b, primary: c.Primary()}
	defer func() { err = errors.Join(err, l.close()) }()
	for i, name := range []string{pathDirect, pathRelay, pathTwo} {
		if err := l.add(ctx, name, i, c.Replicas()[i]); err != nil {
			return err
		}
	}
	if l.writer, err = c.Primary().Connect(ctx); err != nil {
		return err
	}
	if err := l.measure(ctx, "bytes at a client", (*lane).arrive); err != nil {
		return err
	}
	return l.measure(ctx, "row seen on a standby", (*lane).see)
}

// lanes are the ways that are compared.
type lanes struct {
	b       *bench
	primary *pgtest.Node
	writer  *pgx.Conn
	all     []*lane
}

// A lane is one of them: relays, with a client and a standby behind the last.
type lane struct {
	*lanes
	chain   *chain
	standby *pgtest.Node
	reader  *pgx.Conn // of the standby
}

// add makes another lane, which stands still.
func (l *lanes) add(ctx context.Context, name string, relays int, standby *pgtest.Node) error {
	chain, err := startChain(ctx, name, l.primary, relays, drainOpen{Note: true})
	if err != nil {
		return err
	}
	one := &lane{lanes: l, chain: chain, standby: standby}
	l.all = append(l.all, one)
	if relays > 0 {
		source := chain.relays[relays-1].conninfo(standby.Name)
		if err := standby.Server().Configure(ctx, map[string]string{"primary_conninfo": source}); err != nil {
			return err
		}
	}
	if one.reader, err = standby.Connect(ctx); err != nil {
		return err
	}
	return one.stop(false, false)
}

// stop has the lane stand still, or parts of it.
func (l *lane) stop(client, standby bool) error {
	var errs []error
	if !client {
		errs = append(errs, l.chain.client.freeze())
	}
	if !standby {
		errs = append(errs, l.standby.Server().Freeze())
	}
	if !client && !standby {
		for _, r := range l.chain.relays {
			errs = append(errs, r.freeze())
		}
	}
	return errors.Join(errs...)
}

// enter lets all of the lane go on, and returns when it has caught up; what is
// not needed then stands still again.
func (l *lane) enter(ctx context.Context, client, standby bool) error {
	if err := errors.Join(l.chain.thaw(), l.standby.Server().Thaw()); err != nil {
		return err
	}
	at, err := written(ctx, l.primary)
	if err != nil {
		return err
	}
	if err := l.chain.client.await(ctx, at); err != nil {
		return err
	}
	if err := l.standby.WaitReplayed(ctx, at); err != nil {
		return err
	}
	if _, err := l.chain.client.arrivals(ctx); err != nil {
		return err
	}
	return l.stop(client, standby)
}

// commits is how many commits a turn has.
func (l *lanes) commits() int {
	if l.b.Short {
		return 20
	}
	return 300
}

// commit writes a row and returns when it was sent and where its WAL ends.
func (l *lanes) commit(ctx context.Context) (time.Time, wal.LSN, error) {
	begun := time.Now()
	if _, err := l.writer.Exec(ctx, "INSERT INTO commits VALUES (1)"); err != nil {
		return begun, 0, err
	}
	var text string
	if err := l.writer.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
		return begun, 0, err
	}
	at, err := wal.ParseLSN(text)
	return begun, at, err
}

// pause is between two commits, so that each finds everybody asleep, as a single
// one does.
const pause = 2 * time.Millisecond

// rest waits for the next commit.
func rest(ctx context.Context) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// arrive commits, and returns how long after each the client had its WAL.
func (l *lane) arrive(ctx context.Context) (took []float64, err error) {
	if err := l.enter(ctx, true, false); err != nil {
		return nil, err
	}
	type sent struct {
		when int64
		at   wal.LSN
	}
	var all []sent
	for range l.commits() {
		when, at, err := l.commit(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, sent{when.UnixNano(), at})
		if err := rest(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.chain.client.await(ctx, all[len(all)-1].at); err != nil {
		return nil, err
	}
	arrivals, err := l.chain.client.arrivals(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		for len(arrivals) > 0 && arrivals[0].At < s.at {
			arrivals = arrivals[1:]
		}
		if len(arrivals) > 0 {
			took = append(took, float64(arrivals[0].When-s.when)/1e6)
		}
	}
	return took, nil
}

// see commits, and returns how long after each the standby had replayed it. It
// is asked again and again.
func (l *lane) see(ctx context.Context) (took []float64, err error) {
	if err := l.enter(ctx, false, true); err != nil {
		return nil, err
	}
	for range l.commits() {
		begun, at, err := l.commit(ctx)
		if err != nil {
			return nil, err
		}
		for seen := false; !seen; {
			const question = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
			if err := l.reader.QueryRow(ctx, question, at.String()).Scan(&seen); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(begun).Seconds()*1000)
		if err := rest(ctx); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// measure gives each lane its turns.
func (l *lanes) measure(ctx context.Context, of string, do func(*lane, context.Context) ([]float64, error)) error {
	var paths []path
	for _, one := range l.all {
		paths = append(paths, path{one.chain.name, func(ctx context.Context) (measure, error) {
			took, err := do(one, ctx)
			if err := errors.Join(err, one.stop(false, false)); err != nil {
				return nil, err
			}
			return measure{unitP50: median(took), unitP99: quantile(took, 0.99)}, nil
		}})
	}
	if err := l.b.turns(ctx, "latency", of, []string{unitP50, unitP99}, paths, nil); err != nil {
		return err
	}
	base := l.b.report.find("latency", of, pathDirect, unitP50)
	for path, bound := range map[string]float64{pathRelay: 0.1, pathTwo: 0.25} {
		f := l.b.report.find("latency", of, path, unitP50)
		l.b.report.want(fmt.Sprintf("latency, %s: %s adds", of, path), true, bound, "ms", max(0.001, (f.Ratio-1)*base.Value)) // within the rounds
	}
	return nil
}

func (l *lanes) close() error {
	var errs []error
	for _, one := range l.all {
		errs = append(errs, one.chain.thaw(), one.standby.Server().Thaw(), one.chain.close())
		if one.reader != nil {
			one.reader.Close(context.Background()) //nolint:errcheck // read what it had
		}
	}
	if l.writer != nil {
		l.writer.Close(context.Background()) //nolint:errcheck // wrote what it had
	}
	return errors.Join(errs...)
}
