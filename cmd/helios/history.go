package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/heliosdb/helios/server/api"
)

// historyCommand lists failovers and switchovers.
func historyCommand() command {
	return companionCommand(command{
		name:    "history",
		summary: "list failovers and switchovers, and where their time went",
		about: `Times are in milliseconds. DETECT is from the last sign of life to the decision, then come the
commit of the fence, the answers of enough standbys, the election, and the promotion.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		limit := fs.Int("n", 20, "`N` newest of them; 0 is all")
		return show(c, func(ctx context.Context) (*api.History, error) { return c.client.History(ctx, *limit) }, writeHistory)
	})
}

// writeHistory writes a line for each transition, the newest last.
func writeHistory(w io.Writer, h *api.History) error {
	t := newTable("EPOCH", "AT", "KIND", "FROM", "TO", "TL", "DETECT", "FENCE", "SEAL", "ELECT", "PROMOTE", "TOTAL", "REASON")
	for i := range h.Transitions {
		t.add(transitionRow(&h.Transitions[i])...)
	}
	return t.write(w)
}

// transitionRow is one transition as a line of the table.
func transitionRow(tr *api.Transition) []cell {
	kind, why := "failover", tr.Reason
	switch {
	case tr.Forced:
		kind = "forced"
	case tr.Planned:
		kind = "switchover"
	}
	to := cell{text: cmp.Or(tr.To, "nobody")}
	if tr.Aborted != "" {
		to.shade, why = badShade, why+"; given up: "+tr.Aborted
	}
	row := []cell{
		{text: fmt.Sprint(tr.Epoch)},
		{text: tr.At.Local().Format("2006-01-02 15:04:05")},
		{text: kind},
		{text: cmp.Or(tr.From, dash)},
		to,
		{text: timelineText(tr.Timeline)},
	}
	for _, ms := range []float64{tr.Timing.DetectMS, tr.Timing.FenceMS, tr.Timing.SealMS, tr.Timing.ElectMS, tr.Timing.PromoteMS} {
		row = append(row, cell{text: fmt.Sprintf("%.0f", ms)})
	}
	return append(row, cell{fmt.Sprintf("%.0f", tr.Timing.TotalMS), boldShade}, cell{text: why})
}
