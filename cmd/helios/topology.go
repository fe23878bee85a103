package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
)

// topologyCommand shows who follows whom.
func topologyCommand() command {
	return companionCommand(command{
		name:    "topology",
		summary: "show who follows whom, and who votes",
		about:   "The primary is above its replicas; each stands with the address of its companion.",
	}, func(_ *flag.FlagSet, c *companion) action {
		return show(c, func(ctx context.Context) (*api.Overview, error) { return c.client.Cluster(ctx) }, writeTopology)
	})
}

// writeTopology draws the primary, below it its replicas, and then who has no
// PostgreSQL or is not known.
func writeTopology(w io.Writer, o *api.Overview) error {
	colours := colourful(w)
	var above, below, rest []failover.Member
	for _, m := range o.Members {
		n, heard := reported(o.Bulletin, m.Name)
		switch {
		case m.Witness || !heard:
			rest = append(rest, m)
		case n.Role == "primary":
			above = append(above, m)
		case n.Role == "replica":
			below = append(below, m)
		default:
			rest = append(rest, m)
		}
	}
	for _, m := range above {
		fmt.Fprintln(w, memberLine(o, m, colours))
	}
	for i, m := range below {
		branch := "├─ "
		if i == len(below)-1 {
			branch = "└─ "
		}
		fmt.Fprintln(w, branch+memberLine(o, m, colours))
	}
	for _, m := range rest {
		fmt.Fprintln(w, "·  "+memberLine(o, m, colours))
	}
	_, err := fmt.Fprintln(w, votes(o))
	return err
}

// memberLine is one member in the drawing.
func memberLine(o *api.Overview, m failover.Member, colours bool) string {
	n, heard := reported(o.Bulletin, m.Name)
	role := n.Role
	switch {
	case m.Witness:
		role = "witness"
	case !heard:
		role, n.Reason = "unknown", "was never heard of"
	}
	parts := []string{paint(m.Name, boldIf(role == "primary"), colours), role}
	if n.State != "" {
		parts = append(parts, paint(n.State, stateCell(n.State).shade, colours))
	}
	if m.Postgres != "" {
		parts = append(parts, "postgres "+m.Postgres)
	}
	parts = append(parts, "companion "+m.Companion)
	if o.Leader.Name == m.Name {
		parts = append(parts, "leads")
	}
	if slices.Contains(o.SyncSet.Members, m.Name) && o.Settings.Mode == failover.Semisync {
		parts = append(parts, "counts for commits")
	}
	if more := notes(m, n); more != "" {
		parts = append(parts, more)
	}
	return strings.Join(parts, "  ")
}

// votes says who votes, and how many are needed.
func votes(o *api.Overview) string {
	var voters []string
	for _, m := range o.Members {
		if !m.NonVoter {
			voters = append(voters, m.Name)
		}
	}
	return fmt.Sprintf("%d vote (%s), %d are needed", len(voters), strings.Join(voters, ", "), len(voters)/2+1)
}
