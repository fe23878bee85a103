package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/heliosdb/helios/failover/consensus"
)

// logDir is where a companion has its log, below its state directory.
const logDir = "log"

// recover takes lost members out of the log of a survivor whose companion does not
// run, so that it can go on without them.
func (f *failingOver) recover(s streams, args []string) error {
	lost := strings.FieldsFunc(f.lost, func(r rune) bool { return r == ',' || r == ' ' })
	switch {
	case len(args) > 0 || f.to != "":
		return f.companion.usage("--state is about who votes; who becomes the primary is decided afterwards")
	case !f.force:
		return f.companion.usage("--state is for --force: what only the lost nodes have will be lost")
	case f.survivor == "" || len(lost) == 0:
		return f.companion.usage("--state needs the --name of the node that has it, and which nodes are --lost")
	}
	if err := f.confirmLost(s, lost); err != nil {
		return err
	}
	dir := filepath.Join(f.state, logDir)
	if _, err := os.Stat(dir); err != nil {
		return failed(fmt.Errorf("failover: --state: %w", err), f.hintState())
	}
	left, err := consensus.Recover(consensus.Recovery{
		Dir: dir, Name: f.survivor, Lost: lost,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return failed(fmt.Errorf("failover: %w", err), f.hintState())
	}
	return f.writeLeft(s.out, left)
}

func (f *failingOver) hintState() string {
	return "the companion of " + f.survivor + " must not run; its directory is beside the data, with .helios at its end, unless it was named otherwise"
}

// confirmLost has a person type the names of the lost nodes.
func (f *failingOver) confirmLost(s streams, lost []string) error {
	names := strings.Join(lost, ",")
	if f.acceptLoss != "" {
		if f.acceptLoss != names {
			return f.companion.usage("--accept_loss has to say what --lost does: " + names)
		}
		return nil
	}
	if !interactive(s.in) {
		return f.companion.usage("--force asks at a terminal; elsewhere say --accept_loss " + names)
	}
	if err := typed(s, "Commits that only "+names+" have will be lost, even acknowledged ones. If one of them still runs somewhere, or comes\nback with its old state, there are two clusters.", names); err != nil {
		return f.companion.usage(err.Error())
	}
	return nil
}

// writeLeft says who votes from now on, and what is next.
func (f *failingOver) writeLeft(w io.Writer, left []consensus.Server) error {
	if f.companion.asJSON {
		return writeJSON(w, left)
	}
	var names, others []string
	for _, s := range left {
		names = append(names, s.Name)
		if s.Name != f.survivor {
			others = append(others, s.Name)
		}
	}
	fmt.Fprintf(w, "left are %s\n", strings.Join(names, ", "))
	if len(others) > 0 {
		fmt.Fprintf(w, "do the same on %s before any companion is started\n", strings.Join(slices.Compact(others), ", "))
	}
	_, err := fmt.Fprintf(w, `then start helios server as before; helios status tells who takes writes, and if nobody does: helios failover --force NODE
then take the lost ones off the list: helios replicas remove %s
one that comes back joins as a new node, with neither its old state nor its old data
`, strings.ReplaceAll(f.lost, ",", ", and "))
	return err
}
