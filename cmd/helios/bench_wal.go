package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/walbench"
)

// mostSubscribers is what --subscribers may ask for: each is a walsender of a
// server on this machine.
const mostSubscribers = 200

const aboutBenchWAL = `bench wal: a relay next to PostgreSQL's own walsenders and cascading standbys, by
turns, on servers that are started on this machine for it. Relays and clients are
processes of their own, so that the processor time of each part is known.

  fanout       WAL in memory to --subscribers at once
  live         a load on the primary while --subscribers follow
  catchup      what was missed: direct, by a cascading standby, through one relay
               and through two with LZ4
  slow         over a link of 200 Mbit/s and 10 ms
  compression  how much smaller kinds of WAL become
  decode       records a second of one core, checksums included
  memory       of a relay with 1000 subscribers
  rows         rows written and replayed on a standby, at the end of two relays
  idle         a relay while nothing is written
  latency      from a commit to a client, and to a row seen on a standby`

// runWAL checks the flags, measures the relay, and prints what came out.
func (b *bench) runWAL(ctx context.Context, s streams, args []string) error {
	o, err := b.walOptions(s, args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // a second signal does not wait for the clean-up
	r, err := walbench.Run(ctx, o)
	if len(r.Results) > 0 { // those of a run that did not get to its end, too
		if err := r.Write(s.out, b.asJSON); err != nil {
			return failed(fmt.Errorf("bench: %w", err), "")
		}
	}
	switch {
	case ctx.Err() != nil:
		return &failure{code: exitInterrupted, err: errors.New("bench: interrupted")}
	case errors.Is(err, pgtest.ErrUnavailable):
		return failed(fmt.Errorf("bench: %w", errNoPostgres()), hintNoPostgres)
	case err != nil:
		return failed(fmt.Errorf("bench: %w", err), "")
	}
	return nil
}

// walOptions refuses a command line that makes no benchmark of the relay.
func (b *bench) walOptions(s streams, args []string) (walbench.Options, error) {
	o := walbench.Options{Duration: b.duration, Subscribers: b.subscribers, Short: b.short, Log: s.err}
	refuse := func(format string, a ...any) (walbench.Options, error) {
		return o, usageError("bench: "+fmt.Sprintf(format, a...), "helios help bench")
	}
	switch {
	case len(args) > 0:
		return refuse("bench wal takes no DSN: it starts the servers that it needs")
	case b.canned:
		return refuse("--canned has no WAL")
	case b.laps != "":
		return refuse("--benchstat is for the driver; --json has the figures of bench wal")
	case b.duration <= 0:
		return refuse("--duration must be more than 0")
	case slices.Max(b.subscribers) > mostSubscribers:
		return refuse("--subscribers must be from 1 to %d", mostSubscribers)
	}
	if b.workload == "all" {
		o.Workloads = walbench.Workloads()
		return o, nil
	}
	for name := range strings.SplitSeq(b.workload, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(walbench.Workloads(), name) {
			return refuse("--workload %q is none of %s, all", name, strings.Join(walbench.Workloads(), ", "))
		}
		o.Workloads = append(o.Workloads, name)
	}
	return o, nil
}
