package server

import (
	"context"
	"log/slog"

	"github.com/heliosdb/helios/failover"
)

// narrate says what the leader is about to do, where that is a part of a change of
// primaries: read one after the other, these lines are what happened.
func (c *conductor) narrate(ctx context.Context, a failover.Action) {
	what, more := told(a)
	if what == "" {
		return
	}
	level := slog.LevelInfo
	if what == "seal" { // again and again, until it is answered
		level = slog.LevelDebug
	}
	c.logger.LogAttrs(ctx, level, "the leader acts", append([]slog.Attr{slog.String("does", what)}, more...)...)
}

// told returns the name of an action and what there is to say of it; "" if it is
// of no interest.
func told(a failover.Action) (string, []slog.Attr) {
	switch a := a.(type) {
	case failover.Propose:
		return toldCommand(a.Command)
	case failover.Seal:
		return "seal", attrs(a.Epoch, a.Node)
	case failover.Stop:
		return "stop", attrs(a.Epoch, a.Node)
	case failover.Promote:
		return "promote", attrs(a.Epoch, a.Node)
	}
	return "", nil
}

func toldCommand(cmd failover.Command) (string, []slog.Attr) {
	switch {
	case cmd.Fence != nil:
		return "fence", append(attrs(cmd.Fence.Epoch, cmd.Fence.To), slog.String("because", cmd.Fence.Reason))
	case cmd.Elect != nil:
		return "elect", append(attrs(cmd.Elect.Epoch, cmd.Elect.Node), slog.String("because", cmd.Elect.Reason))
	case cmd.Ready != nil:
		return "ready", []slog.Attr{slog.Uint64("epoch", uint64(cmd.Ready.Epoch)), slog.String("timeline", cmd.Ready.Timeline.String())}
	case cmd.Cancel != "":
		return "cancel", []slog.Attr{slog.String("because", cmd.Cancel)}
	}
	return "", nil
}

func attrs(epoch failover.Epoch, who string) []slog.Attr {
	return []slog.Attr{slog.Uint64("epoch", uint64(epoch)), slog.String("who", who)}
}
