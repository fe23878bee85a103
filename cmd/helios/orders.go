package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
)

// An order is something that a companion is told to have done.
type order func(ctx context.Context, args []string) (*api.Done, error)

// orderCommand is a command that gives one order and says what came of it.
func orderCommand(base command, bind func(*flag.FlagSet, *companion) order) command {
	return companionCommand(base, func(fs *flag.FlagSet, c *companion) action {
		do := bind(fs, c)
		return func(ctx context.Context, s streams, args []string) error {
			return c.give(ctx, s.out, func() (*api.Done, error) { return do(ctx, args) })
		}
	})
}

// retryEvery is how often what an election is in the way of is tried again.
const retryEvery = 100 * time.Millisecond

// give gives an order and prints what came of it. While nobody leads it tries again, for as
// long as a companion is waited for: an election is short, and no order was heard.
func (c *companion) give(ctx context.Context, w io.Writer, do func() (*api.Done, error)) error {
	began := time.Now()
	done, err := do()
	for errors.Is(err, &api.Error{Code: api.CodeNoLeader}) && time.Since(began) < c.timeout {
		if err := pause(ctx, retryEvery); err != nil {
			return err
		}
		done, err = do()
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	c.catchUp(ctx, done)
	if c.asJSON {
		return writeJSON(w, done)
	}
	return writeDone(w, done, took)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settleFor is how long a companion may take to hear of what the leader has done.
const settleFor = 2 * time.Second

// catchUp completes what the companion said that took the order: it may have heard of its
// beginning only, since it is the leader who carries it out.
func (c *companion) catchUp(ctx context.Context, done *api.Done) {
	for began := time.Now(); done.Phase != failover.PhaseReady && time.Since(began) < settleFor; {
		if pause(ctx, retryEvery/2) != nil {
			return
		}
		if o, err := c.client.Cluster(ctx); err == nil && o.Epoch >= done.Epoch {
			done.Epoch, done.Phase, done.Primary, done.Paused = o.Epoch, o.Phase, o.Primary, o.Paused
		}
	}
}

// writeDone says what the cluster came to.
func writeDone(w io.Writer, d *api.Done, took time.Duration) error {
	text := "no node takes writes"
	switch {
	case d.Primary != "" && d.Phase == failover.PhaseReady:
		text = d.Primary + " is the primary"
	case d.Primary != "" && d.Phase == failover.PhaseElected:
		text = d.Primary + " is becoming the primary"
	}
	if d.Paused {
		text += "; the cluster is paused"
	}
	_, err := fmt.Fprintf(w, "%s done in %s: epoch %d, %s\n", d.Order, age(took), d.Epoch, text)
	return err
}

// switchoverCommand moves the primary in good order.
func switchoverCommand() command {
	return orderCommand(command{
		name:    "switchover",
		args:    "[NODE]",
		summary: "let another node become the primary, in good order",
		about: `Without NODE the best one is taken. Drivers hold their writes back meanwhile, so that
applications wait for a moment and see no error. No commit is lost; if the primary does not
stop in time it goes on as before.`,
	}, func(fs *flag.FlagSet, c *companion) order {
		to := fs.String("to", "", "`NODE`, as the argument")
		return func(ctx context.Context, args []string) (*api.Done, error) {
			node, err := c.optionalNode(args, *to)
			if err != nil {
				return nil, err
			}
			return c.client.Switchover(ctx, node)
		}
	})
}

// optionalNode returns the node that an argument or a flag names; "" for none.
func (c *companion) optionalNode(args []string, byFlag string) (string, error) {
	switch {
	case len(args) == 0:
		return byFlag, nil
	case len(args) > 1 || byFlag != "" && byFlag != args[0]:
		return "", c.usage("want one node at most")
	}
	return args[0], nil
}

// promoteCommand makes a node the primary.
func promoteCommand() command {
	return orderCommand(command{
		name:    "promote",
		args:    "NODE",
		summary: "make a node the primary, in whatever way loses nothing",
		about: `By a switchover if there is a primary, else by a failover that loses no acknowledged
commit; if there is no such failover it is refused, and helios failover --force is what
is left.`,
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			node, err := c.oneNode(args)
			if err != nil {
				return nil, err
			}
			return c.client.Promote(ctx, node)
		}
	})
}

// pauseCommand leaves everything to the operator.
func pauseCommand() command {
	return orderCommand(command{
		name:    "pause",
		summary: "do nothing without an operator: no failover until helios resume",
		about:   "The primary goes on, and so do replication and the measuring of lag.",
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			if err := c.noArguments(args); err != nil {
				return nil, err
			}
			return c.client.Pause(ctx)
		}
	})
}

// resumeCommand ends a pause.
func resumeCommand() command {
	return orderCommand(command{
		name:    "resume",
		summary: "end a pause",
		about:   "What was left to the operator meanwhile, such as a primary that is gone, is seen to at once.",
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			if err := c.noArguments(args); err != nil {
				return nil, err
			}
			return c.client.Resume(ctx)
		}
	})
}

// maintenanceCommand takes a node out for a while.
func maintenanceCommand() command {
	return orderCommand(command{
		name:    "maintenance",
		args:    "on|off NODE",
		summary: "take a node out of elections and of what commits wait for, or put it back",
		about: `A node in maintenance may be stopped, and is neither promoted nor waited for. If it is the
primary, move that first: helios switchover.`,
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			if len(args) != 2 || args[0] != "on" && args[0] != "off" {
				return nil, c.usage("want on or off, and the name of one node")
			}
			return c.client.Maintenance(ctx, args[1], args[0] == "on")
		}
	})
}

// reinitCommand has a node's data made anew.
func reinitCommand() command {
	return orderCommand(command{
		name:    "reinit",
		args:    "NODE",
		summary: "make a replica's data directory anew, from the primary's",
		about: `For a replica that cannot follow any more. Its old directory is kept until the new one is
complete, so that the node needs room for both.`,
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			node, err := c.oneNode(args)
			if err != nil {
				return nil, err
			}
			return c.client.Reinit(ctx, node)
		}
	})
}
