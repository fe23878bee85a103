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
are then gone; whoever orders that types the name of the lost node, or gives it with --accept_loss.

If more than half of the companions that vote are gone for good, nobody can decide anything. Then
each survivor is told to go on without them, with its companion stopped:

  helios failover --force --state /var/lib/postgresql/n1.helios --name n1 --lost n2,n3

That asks no companion. It is refused while those that are left could decide by themselves.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		f := &failingOver{companion: c}
		fs.StringVar(&f.to, "to", "", "`NODE`, as the argument")
		fs.BoolVar(&f.force, "force", false, "even if acknowledged commits may be lost")
		fs.StringVar(&f.acceptLoss, "accept_loss", "", "with --force: `NAME` of the node whose commits may be lost")
		fs.StringVar(&f.state, "state", "", "`DIR` of what a survivor's companion remembers, to take --lost out of it")
		fs.StringVar(&f.survivor, "name", "", "with --state: `NAME` of the survivor")
		fs.StringVar(&f.lost, "lost", "", "with --state: `NAMES` of those that are gone for good, n2,n3")
		return f.run
	})
}

// failingOver is one run of the command.
type failingOver struct {
	companion             *companion
	to, acceptLoss        string
	state, survivor, lost string
	force                 bool
}

// run gives the order, and says what came of it.
func (f *failingOver) run(ctx context.Context, s streams, args []string) error {
	if f.state != "" {
		return f.recover(s, args)
	}
	node, err := f.companion.optionalNode(args, f.to)
	switch {
	case err == nil && f.survivor+f.lost != "":
		return f.companion.usage("--name and --lost are for --state")
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
	order := api.Failover{To: node, Force: f.force, AcceptLoss: f.acceptLoss}
	return f.companion.give(ctx, s.out, func() (*api.Done, error) { return f.companion.client.Failover(ctx, order) })
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
	if !interactive(s.in) {
		return f.companion.usage("--force asks at a terminal; elsewhere say --accept_loss " + lost)
	}
	if err := typed(s, "Commits that only "+lost+" has will be lost, even acknowledged ones.", lost); err != nil {
		return f.companion.usage(err.Error())
	}
	f.acceptLoss = lost
	return nil
}

// interactive reports whether somebody can be asked.
func interactive(in io.Reader) bool {
	file, ok := in.(*os.File)
	return !ok || isTerminal(file)
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
