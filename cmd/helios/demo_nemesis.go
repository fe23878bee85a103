package main

import (
	"context"
	"errors"
	"strings"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/netns"
)

// A nemesis is what befalls the primary of a demo.
type nemesis string

const (
	crash      nemesis = "crash"
	freeze     nemesis = "freeze"
	partition  nemesis = "partition"
	switchover nemesis = "switchover"
)

var nemeses = []nemesis{crash, freeze, partition, switchover}

// join writes a list for people.
func join(list []nemesis) string {
	var words []string
	for _, n := range list {
		words = append(words, string(n))
	}
	return strings.Join(words, ", ")
}

// story is what will happen, after "after a third of it".
func (n nemesis) story() string {
	return map[nemesis]string{
		crash:      "the primary's node crashes",
		freeze:     "the primary's node freezes",
		partition:  "the primary's node is cut off",
		switchover: "the primary hands over",
	}[n]
}

// fault says what happens to the primary.
func (n nemesis) fault() string {
	return map[nemesis]string{
		crash:      "crashes: SIGKILL to its companion and all processes of its PostgreSQL",
		freeze:     "freezes: SIGSTOP to its companion and all processes of its PostgreSQL",
		partition:  "is cut off: its network cable is pulled",
		switchover: "is told to hand over",
	}[n]
}

// repair says what happens to the old primary later.
func (n nemesis) repair() string {
	return map[nemesis]string{
		crash:     "is started again",
		freeze:    "goes on: SIGCONT",
		partition: "is connected again",
	}[n]
}

// A fate has a nemesis befall nodes, and undoes it.
type fate struct {
	nemesis nemesis
	network *netns.Network // of a partition
	order   func(ctx context.Context) error
}

// strike has the nemesis befall a node.
func (f fate) strike(ctx context.Context, n *companions.Node) error {
	switch f.nemesis {
	case crash:
		return n.Kill()
	case freeze:
		return n.Freeze()
	case partition:
		return f.network.Isolate(n.Name)
	case switchover:
		return f.order(ctx)
	}
	return errors.New("no such nemesis")
}

// mend undoes it.
func (f fate) mend(n *companions.Node) error {
	switch f.nemesis {
	case crash:
		return n.Start()
	case freeze:
		return n.Thaw()
	case partition:
		return f.network.Heal()
	case switchover:
	}
	return nil
}
