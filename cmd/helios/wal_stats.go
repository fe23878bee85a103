package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal/relay"
)

// walStatsCommand asks a relay how it is.
func walStatsCommand() command {
	return command{
		name:    "wal stats",
		args:    "DSN",
		summary: "ask a relay what it has, and how far its standbys are",
		about: `DSN is the relay, as a standby would name it: postgres://repl@relay:5433. The same is
told to psql:

  psql "host=relay port=5433 user=repl replication=1" -c 'SHOW helios_status'

BEHIND is bytes that were not applied, LAG how long ago the first of them arrived at
the relay. The exit code is 1 if the relay has no source.`,
		flags: func(fs *flag.FlagSet) action {
			w := &walStats{}
			fs.BoolVar(&w.asJSON, "json", false, "print a JSON object")
			fs.DurationVar(&w.timeout, "timeout", 5*time.Second, "`DURATION` to wait for the relay at most")
			return w.run
		},
	}
}

// walStats is one run of the command.
type walStats struct {
	asJSON  bool
	timeout time.Duration
}

func (w *walStats) run(ctx context.Context, s streams, args []string) error {
	if len(args) != 1 {
		return usageError("wal stats: want the DSN of one relay", "helios wal stats postgres://repl@localhost:5433")
	}
	source, err := relay.ParseSource(args[0])
	if err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("wal stats: %w", plainWAL(err)), hint: "helios help wal stats"}
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	client, err := replication.Connect(ctx, source[0])
	if err != nil {
		hint := ""
		if e, ok := errors.AsType[*pgconn.PgError](err); ok { // what is behind it
			hint = e.Detail
		}
		return failed(fmt.Errorf("wal stats: %w", err), hint)
	}
	defer client.Close() //nolint:errcheck // nothing was changed
	text, err := client.Show(ctx, relay.StatusParameter)
	if err != nil {
		return failed(fmt.Errorf("wal stats: %w", err), "the server there is no relay of helios, or an old one")
	}
	var status relay.Status
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return failed(fmt.Errorf("wal stats: the relay's answer is not understood: %w", err), "bring this program and the relay to one version")
	}
	if w.asJSON {
		out := json.NewEncoder(s.out)
		out.SetIndent("", "  ")
		err = out.Encode(status)
	} else {
		err = writeWALStats(s.out, status)
	}
	if err == nil && !status.Connected {
		err = failed(errors.New("wal stats: the relay has no source"), "")
	}
	return err
}

// writeWALStats writes a status for people.
func writeWALStats(out io.Writer, s relay.Status) error {
	source := "connected since " + s.Since.Local().Format(time.DateTime)
	if !s.Connected {
		source = "not connected: " + s.Error
	}
	fmt.Fprintf(out, "source      %s, %s\n", cmp.Or(s.Source, "(none yet)"), source)
	fmt.Fprintf(out, "system      %s, timeline %s\n", s.System, s.Timeline)
	fmt.Fprintf(out, "WAL         %s to %s in memory, %s of it\n", s.Tail, s.Head, readableBytes(s.Memory))
	fmt.Fprintf(out, "received    %s in %d messages\n", readableBytes(s.Bytes), s.Entries)
	if s.Frames > 0 {
		fmt.Fprintf(out, "frames      %d, %s in %s: %.1f to 1; %d sent again\n",
			s.Frames, readableBytes(s.FrameBytes), readableBytes(s.CompressedBytes), s.Ratio, s.FramesReused)
	}
	fmt.Fprintf(out, "confirmed   write %s, flush %s, apply %s (%s)\n", s.Confirmed.Write, s.Confirmed.Flush, s.Confirmed.Apply, s.Acknowledge)
	if s.Spool != nil {
		fmt.Fprintf(out, "spool       %s in %s, %s to %s\n", readableBytes(s.Spool.Bytes), s.Spool.Dir, s.Spool.Oldest, s.Spool.Flushed)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Slots)) {
		fmt.Fprintf(out, "slot        %s at %s\n", name, s.Slots[name])
	}
	if len(s.Subscribers) == 0 {
		_, err := fmt.Fprintln(out, "subscribers none")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\nSUBSCRIBER\tADDR\tSTATE\tTIMELINE\tSENT\tFLUSH\tAPPLY\tBEHIND\tLAG\tSENT BYTES\n")
	for _, x := range s.Subscribers {
		where := x.Addr
		if x.Via != "" {
			where = "via " + x.Via
		}
		behind, lag := "-", "-" // of who applies nothing, such as pg_receivewal
		if x.Confirmed.Apply != 0 {
			behind, lag = readableBytes(int64(x.Lag.Behind)), x.Lag.Apply.Round(100*time.Microsecond).String() //nolint:gosec // less than memory
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Name, where, x.State, x.Timeline, x.Sent,
			x.Confirmed.Flush, x.Confirmed.Apply, behind, lag, readableBytes(x.Bytes))
	}
	return table.Flush()
}

// readableBytes writes a number of bytes with three digits or so.
func readableBytes(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}} {
		if n >= 10*u.bytes {
			return fmt.Sprintf("%d %s", n/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
