package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/heliosdb/helios/topology"
)

// lagCommand shows how far replicas are behind.
func lagCommand() command {
	return companionCommand(command{
		name:    "lag",
		summary: "show how old what replicas show is, and what they have not received",
		about: `LAG is the age of the data that a replica's queries see; clocks of two machines are never
compared for it. RECV and REPLAY are the WAL that it has not received, and not replayed.

With --json it is what the companion has measured, with what it was like over time. The
exit code is 1 if a replica's lag is more than --max.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		limit := fs.Duration("max", 0, "`DURATION` of lag that is too much; 0 accepts any")
		return func(ctx context.Context, s streams, args []string) error {
			if err := c.noArguments(args); err != nil {
				return err
			}
			overview, err := c.client.Cluster(ctx)
			if err != nil {
				return err
			}
			if c.asJSON {
				measured, err := c.client.Lag(ctx)
				if err != nil {
					return err
				}
				if err := writeJSON(s.out, measured); err != nil {
					return err
				}
			} else if err := writeLag(s.out, overview.Bulletin); err != nil {
				return err
			}
			for _, n := range replicas(overview.Bulletin) {
				if *limit > 0 && (n.Lag < 0 || n.Lag > *limit) {
					return failed(fmt.Errorf("lag: %s is %s behind, more than %v", n.Name, lagText(n.Lag), *limit), "")
				}
			}
			return nil
		}
	})
}

// replicas are those in a bulletin; none if there is no bulletin.
func replicas(b *topology.Bulletin) []topology.Reported {
	var found []topology.Reported
	if b != nil {
		for i := range b.Nodes {
			if b.Nodes[i].Role == "replica" {
				found = append(found, b.Nodes[i])
			}
		}
	}
	return found
}

// writeLag writes a line for each replica.
func writeLag(w io.Writer, b *topology.Bulletin) error {
	t := newTable("REPLICA", "STATE", "LAG", "RECV", "REPLAY", "STREAMING", "LSN")
	for _, n := range replicas(b) {
		primary, _ := reported(b, b.Primary)
		streaming := yes(n.Streaming)
		if !n.Streaming {
			streaming.shade = badShade
		}
		t.add(cell{text: n.Name}, stateCell(n.State), cell{text: lagText(n.Lag)}, cell{text: behind(primary.CurrentLSN, n.ReceiveLSN)},
			cell{text: behind(primary.CurrentLSN, n.ReplayLSN)}, streaming, cell{text: lsnText(n.ReplayLSN)})
	}
	return t.write(w)
}
