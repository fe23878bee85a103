package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// statusCommand shows every member of a cluster.
func statusCommand() command {
	return companionCommand(command{
		name:    "status",
		summary: "show a cluster as its companions see it",
		about: `LAG is the age of the data that a replica shows, RECV and REPLAY are how much WAL it
has not received and not replayed, as one companion tells it. EPOCH, and how much of its LEASE
a primary has left, are asked of each companion itself: - is one that does not answer.

The exit code is 1 if no node takes writes.`,
	}, func(_ *flag.FlagSet, c *companion) action {
		return func(ctx context.Context, s streams, args []string) error {
			if err := c.noArguments(args); err != nil {
				return err
			}
			overview, err := c.client.Cluster(ctx)
			if err != nil {
				return err
			}
			seen := c.lookAtAll(ctx, overview.Members)
			if c.asJSON {
				err = writeJSON(s.out, statusAnswer{overview, seen})
			} else {
				err = writeStatus(s.out, overview, seen)
			}
			if err != nil {
				return err
			}
			return servingVerdict(overview, seen)
		}
	})
}

// statusAnswer is what programs are told.
type statusAnswer struct {
	*api.Overview

	Health map[string]api.Health `json:"health"` // of each node, as its own companion tells it
}

// lookFor is how long a companion is waited for that is asked about its own node only.
const lookFor = time.Second

// lookAtAll asks each member's companion how its node is. Who does not answer is not there.
func (c *companion) lookAtAll(ctx context.Context, members []failover.Member) map[string]api.Health {
	options := c.options
	options.Timeout = min(options.Timeout, lookFor)
	var mu sync.Mutex
	var looking sync.WaitGroup
	seen := map[string]api.Health{}
	for _, m := range members {
		looking.Go(func() {
			asked, err := client.New([]string{m.Companion}, options)
			if err != nil {
				return
			}
			defer asked.Close()
			if sight, err := asked.Look(ctx); err == nil {
				mu.Lock()
				defer mu.Unlock()
				seen[m.Name] = sight.Health
			}
		})
	}
	looking.Wait()
	return seen
}

// servingVerdict is the error of a cluster that takes no writes.
func servingVerdict(o *api.Overview, seen map[string]api.Health) error {
	switch {
	case o.IsStranger():
		return failed(fmt.Errorf("status: %s is no member of the cluster: what it tells is old", o.Companion), "ask another companion with --companion; this one can be stopped")
	case o.Bulletin != nil && o.Bulletin.Primary != "":
		return primaryVerdict(o, seen)
	case o.Leader.Name == "" && len(o.Members) == 0:
		return failed(fmt.Errorf("status: %s was just started, and hears from no other companion yet what the cluster is", o.Companion), "start the companions of more than half of the nodes, in any order")
	case o.Leader.Name == "":
		return failed(errors.New("status: no companion leads: more than half of those that vote are needed"), "helios doctor says which are missing; helios help failover is about the case that they are gone for good")
	case o.Paused:
		return failed(errors.New("status: no node takes writes, and the cluster is paused"), "helios promote NODE, or helios resume")
	default:
		return failed(errors.New("status: no node takes writes"), "helios watch shows what is being done about it, helios doctor what is in the way")
	}
}

// primaryVerdict is the error of a primary that takes no writes. Without automatic
// failover it stays the primary, however dead it is.
func primaryVerdict(o *api.Overview, seen map[string]api.Health) error {
	n, ok := reported(o.Bulletin, o.Bulletin.Primary)
	switch {
	case !ok, n.State != "down" && n.State != "hung" && n.State != "unknown":
		return nil
	case seen[n.Name].LeaseMS > 0: // a leader that is new has not heard of it yet
		return nil
	}
	text := fmt.Sprintf("status: no node takes writes: %s is %s", n.Name, n.State)
	if n.Reason != "" {
		text += ": " + n.Reason
	}
	return failed(errors.New(text), "helios watch shows what is being done about it; if that is nothing, helios failover has another one take over")
}

// writeStatus writes a line about the cluster and one for each member.
func writeStatus(w io.Writer, o *api.Overview, seen map[string]api.Health) error {
	fmt.Fprintln(w, headline(o))
	for _, line := range warningLines(o.Bulletin) {
		fmt.Fprintln(w, line)
	}
	t := newTable("MEMBER", "HOST", "ROLE", "STATE", "TL", "LSN", "RECV", "REPLAY", "LAG", "EPOCH", "LEASE", "NOTE")
	for _, m := range o.Members {
		epoch, lease := cell{text: dash}, cell{text: dash}
		if h, ok := seen[m.Name]; ok {
			epoch.text = strconv.FormatUint(uint64(h.Epoch), 10)
			if h.LeaseMS > 0 {
				lease.text = age(inTime(h.LeaseMS))
			}
			if h.Epoch != o.Epoch {
				epoch.shade = warnShade
			}
		}
		t.add(append(memberRow(o, m), epoch, lease, noteCell(o, m))...)
	}
	return t.write(w)
}

// headline says in one line how the cluster is.
func headline(o *api.Overview) string {
	parts := []string{fmt.Sprintf("cluster %d", o.SystemID), fmt.Sprintf("epoch %d %s", o.Epoch, o.Phase), modeOf(o)}
	if o.Leader.Name != "" {
		parts = append(parts, "led by "+o.Leader.Name)
	} else {
		parts = append(parts, "led by nobody")
	}
	if !o.Settings.AutoFailover {
		parts = append(parts, "no automatic failover")
	}
	if o.Paused {
		parts = append(parts, "PAUSED")
	}
	if o.Switchover != nil {
		parts = append(parts, "switchover to "+cmp.Or(o.Switchover.To, "the best")+" under way")
	}
	return strings.Join(parts, ", ")
}

// warningLines is what a bulletin, if there is one, says that people should look at.
func warningLines(b *topology.Bulletin) []string {
	if b == nil {
		return nil
	}
	var lines []string
	for _, text := range b.Warnings {
		lines = append(lines, "look: "+text)
	}
	return lines
}

// modeOf says what commits wait for.
func modeOf(o *api.Overview) string {
	lease := fmt.Sprintf("lease %v", time.Duration(o.Settings.Lease))
	if o.Settings.Mode != failover.Semisync {
		return fmt.Sprintf("%s, %s", o.Settings.Mode, lease)
	}
	return fmt.Sprintf("semisync %d of (%s), %s", o.SyncSet.K, strings.Join(o.SyncSet.Members, ", "), lease)
}

// reported returns what the newest bulletin says of a node.
func reported(b *topology.Bulletin, name string) (topology.Reported, bool) {
	if b != nil {
		for i := range b.Nodes {
			if b.Nodes[i].Name == name {
				return b.Nodes[i], true
			}
		}
	}
	return topology.Reported{}, false
}

// memberRow is one member as a line of the table, but for what its companion tells itself.
func memberRow(o *api.Overview, m failover.Member) []cell {
	n := nodeOf(o, m)
	row := []cell{{m.Name, boldIf(n.Role == "primary")}, {text: cmp.Or(m.Postgres, m.Companion)}, roleCell(n.Role), stateCell(n.State), {text: timelineText(n.Timeline)}}
	return append(row, positionCells(n, primaryLSN(o))...)
}

// nodeOf is what there is to know about a member.
func nodeOf(o *api.Overview, m failover.Member) topology.Reported {
	n, heard := reported(o.Bulletin, m.Name)
	if !heard {
		n.Role, n.State, n.Reason = "unknown", "unknown", "was never heard of"
	}
	if m.Witness {
		n.Role = "witness"
	}
	return n
}

// noteCell is what else there is to say of a member.
func noteCell(o *api.Overview, m failover.Member) cell {
	return cell{notes(m, nodeOf(o, m)), dimShade}
}

// dash stands for what is not known.
const dash = "-"

// positionCells are LSN, RECV, REPLAY and LAG.
func positionCells(n topology.Reported, head wal.LSN) []cell {
	switch n.Role {
	case "primary":
		return []cell{{text: lsnText(n.CurrentLSN)}, {text: dash}, {text: dash}, {text: dash}}
	case "replica":
		return []cell{{text: lsnText(n.ReplayLSN)}, {text: behind(head, n.ReceiveLSN)}, {text: behind(head, n.ReplayLSN)}, {text: lagText(n.Lag)}}
	default:
		return []cell{{text: dash}, {text: dash}, {text: dash}, {text: dash}}
	}
}

// primaryLSN is where the primary's WAL ends; 0 if nobody knows.
func primaryLSN(o *api.Overview) wal.LSN {
	n, _ := reported(o.Bulletin, o.Primary)
	return n.CurrentLSN
}

func boldIf(is bool) shade {
	if is {
		return boldShade
	}
	return plainShade
}

func roleCell(role string) cell { return cell{role, boldIf(role == "primary")} }

func stateCell(state string) cell {
	switch state {
	case "up":
		return cell{state, goodShade}
	case "starting", "maintenance":
		return cell{state, warnShade}
	default:
		return cell{state, badShade}
	}
}

func timelineText(t wal.Timeline) string {
	if t == 0 {
		return dash
	}
	return strconv.FormatUint(uint64(t), 10)
}

func lsnText(l wal.LSN) string {
	if l == 0 {
		return dash
	}
	return l.String()
}

// behind says how many bytes are missing at l.
func behind(head, l wal.LSN) string {
	switch {
	case head == 0 || l == 0:
		return dash
	case l >= head:
		return "0"
	}
	return readableBytes(int64(head - l))
}

func lagText(lag time.Duration) string {
	if lag < 0 {
		return dash
	}
	return age(lag)
}

// age writes a time with as many digits as people need.
func age(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// notes are what else there is to say of a member.
func notes(m failover.Member, n topology.Reported) string {
	var all []string
	for _, tag := range []struct {
		is   bool
		text string
	}{
		{m.Maintenance, "maintenance"},
		{m.NonVoter, "no vote"},
		{m.NoCandidate, "no candidate"},
		{m.NoSync, "no sync"},
		{m.Priority != 0, fmt.Sprintf("priority %d", m.Priority)},
		{m.Zone != "", "zone " + m.Zone},
		{n.Role == "replica" && n.State == "up" && !n.Streaming, "not streaming"},
		{n.Reason != "", n.Reason},
	} {
		if tag.is {
			all = append(all, tag.text)
		}
	}
	return strings.Join(all, "; ")
}
