package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
)

// watchCommand prints what changes in a cluster, as it does.
func watchCommand() command {
	return companionCommand(command{
		name:    "watch",
		summary: "show what changes in a cluster, line by line",
		about: `It begins with how the cluster is, and runs until it is interrupted. When a companion goes
away it listens to the next one.

With --json every line is what drivers are told: a whole bulletin.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		w := &watching{companion: c}
		fs.DurationVar(&w.every, "every", 0, "`DURATION` after which how the nodes are is printed, even if nothing has changed; 0 is never")
		return w.run
	})
}

// watching is one run of the command.
type watching struct {
	companion *companion
	every     time.Duration

	last    *topology.Bulletin
	printed time.Time // when last was printed whole
	away    bool      // the last word was that the stream has ended
	failed  int       // streams that ended before anything was told
}

// run prints until ctx ends or somebody interrupts.
func (w *watching) run(ctx context.Context, s streams, args []string) error {
	if err := w.companion.noArguments(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	for b, err := range w.companion.client.Watch(ctx) {
		switch {
		case err != nil && ctx.Err() != nil:
			return nil // that is how it ends
		case err != nil && w.hopeless():
			return fmt.Errorf("%w: %w", client.ErrAway, err)
		case err != nil:
			w.lost(s.err, err)
		default:
			if err := w.show(s.out, b, time.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// hopeless reports whether every companion was tried, and none has told anything.
func (w *watching) hopeless() bool {
	w.failed++
	return w.last == nil && w.failed >= len(w.companion.addresses())
}

// lost says once that the stream has ended.
func (w *watching) lost(out io.Writer, err error) {
	if !w.away {
		fmt.Fprintf(out, "helios: watch: %v; listening to the next one\n", err)
	}
	w.away = true
}

// show prints what b says that the last one did not.
func (w *watching) show(out io.Writer, b *topology.Bulletin, now time.Time) error {
	last := w.last
	w.last, w.away = b, false
	if w.companion.asJSON {
		if last != nil && last.Term == b.Term && last.Seq == b.Seq {
			return nil // a heartbeat
		}
		return json.NewEncoder(out).Encode(b)
	}
	whole := last == nil || w.every > 0 && now.Sub(w.printed) >= w.every
	lines := changes(last, b)
	if whole {
		w.printed = now
		lines = slices.Concat([]string{bulletinLine(b)}, nodeLines(b), warningLines(b))
	}
	for _, line := range lines {
		if _, err := fmt.Fprintf(out, "%s  %s\n", now.Format("15:04:05.000"), line); err != nil {
			return err
		}
	}
	return nil
}

// bulletinLine is what a bulletin says of the whole cluster.
func bulletinLine(b *topology.Bulletin) string {
	line := fmt.Sprintf("epoch %d %s, timeline %d, ", b.Epoch, b.Phase, b.Timeline)
	if b.Primary == "" {
		line += "no node takes writes"
	} else {
		line += b.Primary + " takes writes"
	}
	if b.Hold {
		line += ", drivers hold theirs back"
	}
	return line
}

// nodeLines is what a bulletin says of each node.
func nodeLines(b *topology.Bulletin) []string {
	var lines []string
	for i := range b.Nodes {
		lines = append(lines, nodeLine(&b.Nodes[i]))
	}
	return lines
}

// nodeLine is what a bulletin says of one node.
func nodeLine(n *topology.Reported) string {
	line := fmt.Sprintf("%s: %s, %s", n.Name, n.Role, n.State)
	switch {
	case n.Role == "primary" && n.CurrentLSN != 0:
		line += fmt.Sprintf(", at %s", n.CurrentLSN)
	case n.Role == "replica" && n.State == "up" && !n.Streaming:
		line += ", not streaming"
	case n.Role == "replica" && n.State == "up":
		line += ", lag " + lagText(n.Lag)
	}
	if n.Reason != "" {
		line += ": " + n.Reason
	}
	return line
}

// changes are what b says that last did not, but for positions, which always do.
func changes(last, b *topology.Bulletin) []string {
	if last == nil {
		return nil
	}
	var lines []string
	if last.Epoch != b.Epoch || last.Phase != b.Phase || last.Primary != b.Primary || last.Hold != b.Hold || last.Timeline != b.Timeline {
		lines = append(lines, bulletinLine(b))
	}
	if last.Companion != b.Companion {
		lines = append(lines, fmt.Sprintf("now told by %s, and not by %s", b.Companion, last.Companion))
	}
	old := warningLines(last)
	for _, line := range warningLines(b) {
		if !slices.Contains(old, line) {
			lines = append(lines, line)
		}
	}
	for i := range b.Nodes {
		n := &b.Nodes[i]
		old, known := reported(last, n.Name)
		if !known || old.Role != n.Role || old.State != n.State || old.Reason != n.Reason || old.Streaming != n.Streaming || old.Timeline != n.Timeline || old.Addr != n.Addr {
			lines = append(lines, nodeLine(n))
		}
	}
	for i := range last.Nodes {
		if _, is := reported(b, last.Nodes[i].Name); !is {
			lines = append(lines, last.Nodes[i].Name+": is no member any more")
		}
	}
	return lines
}
