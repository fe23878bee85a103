package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/heliosdb/helios/server/api"
)

// failoverCommand makes a node the primary without the old one's help.
func failoverCommand() command {
	return companionCommand(command{
		name:    "failover",
		args:    "[NODE]",
		summary: "make another node the primary without the old one's help",
		about: `For a primary that does not answer. Without NODE the best one is taken. Where commits wait for
standbys, it is refused unless enough standbys answer that no acknowledged commit can be lost.

--force does it even so. Commits that the lost primary has acknowledged and no remaining node has
are then gone; whoever orders that types the name of the lost node, or gives it with --accept_loss.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		f := &failingOver{companion: c}
		fs.StringVar(&f.to, "to", "", "`NODE`, as the argument")
		fs.BoolVar(&f.force, "force", false, "even if acknowledged commits may be lost")
		fs.StringVar(&f.acceptLoss, "accept_loss", "", "with --force: `NAME` of the node whose commits may be lost")
		return f.run
	})
}

// failingOver is one run of the command.
type failingOver struct {
	companion      *companion
	to, acceptLoss string
	force          bool
}

// run gives the order, and says what came of it.
func (f *failingOver) run(ctx context.Context, s streams, args []string) error {
	node, err := f.companion.optionalNode(args, f.to)
	switch {
	case err != nil:
		return err
	case f.acceptLoss != "" && !f.force:
		return f.companion.usage("--accept_loss is for --force")
	}
	if f.force && f.acceptLoss == "" {
		if err := f.confirm(ctx, s); err != nil {
			return err
		}
	}
	began := time.Now()
	done, err := f.companion.client.Failover(ctx, api.Failover{To: node, Force: f.force, AcceptLoss: f.acceptLoss})
	switch {
	case err != nil:
		return err
	case f.companion.asJSON:
		return writeJSON(s.out, done)
	}
	return writeDone(s.out, done, time.Since(began))
}

// confirm has a person type the name of the node whose commits may be lost.
func (f *failingOver) confirm(ctx context.Context, s streams) error {
	overview, err := f.companion.client.Cluster(ctx)
	if err != nil {
		return err
	}
	lost := overview.Primary
	if lost == "" {
		return f.companion.usage("nobody was the primary; --accept_loss names the node whose commits may be lost")
	}
	if in, ok := s.in.(*os.File); ok && !isTerminal(in) {
		return f.companion.usage("--force asks at a terminal; elsewhere say --accept_loss " + lost)
	}
	if err := typed(s, "Commits that only "+lost+" has will be lost, even acknowledged ones.", lost); err != nil {
		return f.companion.usage(err.Error())
	}
	f.acceptLoss = lost
	return nil
}

// typed asks for a word, and fails if another one is typed.
func typed(s streams, warning, word string) error {
	fmt.Fprintf(s.err, "%s\nType %s to go on: ", warning, word)
	line, err := bufio.NewReader(s.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != word {
		return fmt.Errorf("%s was not typed: nothing was done", word)
	}
	return nil
}
