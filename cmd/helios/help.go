package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/heliosdb/helios/internal/spelling"
)

// helpCommand explains the others.
func helpCommand() command {
	return command{
		name:    "help",
		args:    "[COMMAND]",
		summary: "explain a command",
		about:   "Without a command it lists them all.",
		flags: func(*flag.FlagSet) action {
			return func(_ context.Context, s streams, args []string) error {
				if len(args) == 0 {
					return listCommands(s.out)
				}
				c, rest, err := findCommand(args)
				switch {
				case err != nil:
					return err
				case len(rest) > 0:
					return usageError("help: one command at a time", "helios help "+args[0])
				}
				return c.help(s.out)
			}
		},
	}
}

// listCommands writes what helios can do.
func listCommands(w io.Writer) error {
	fmt.Fprint(w, "helios is a database/sql driver for whole PostgreSQL clusters. This program shows what it does.\n\nUsage: helios COMMAND [FLAGS] [ARGUMENTS]\n\n")
	if err := listAll(w, commands()); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\nhelios help COMMAND says more. Exit codes: 0 all is well, 1 it is not, 2 the command line is wrong,\n3 no companion answers, 4 a companion refused, 130 interrupted.\n")
	return err
}

// listAll writes a line for each command.
func listAll(w io.Writer, all []command) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range all {
		fmt.Fprintf(table, "  %s\t%s\n", c.name, c.summary)
	}
	return table.Flush()
}

// help writes what one command is for and what its flags are.
func (c *command) help(w io.Writer) error {
	fs := newFlagSet(c.name)
	if c.parts == nil {
		c.flags(fs)
	}
	usage := "Usage: helios " + c.name
	if hasFlags(fs) {
		usage += " [FLAGS]"
	}
	if c.args != "" {
		usage += " " + c.args
	}
	fmt.Fprintf(w, "helios %s: %s.\n\n%s\n\n%s\n", c.name, c.summary, usage, c.about)
	switch {
	case c.parts != nil:
		fmt.Fprintln(w)
		return listAll(w, c.parts)
	case !hasFlags(fs):
		return nil
	}
	fmt.Fprint(w, "\nFlags:\n")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fs.VisitAll(func(f *flag.Flag) { fmt.Fprintf(table, "  %s\t%s\n", flagName(f), flagMeaning(f)) })
	return table.Flush()
}

func hasFlags(fs *flag.FlagSet) bool {
	found := false
	fs.VisitAll(func(*flag.Flag) { found = true })
	return found
}

// flagName returns a flag as it is typed, such as "--readers N".
func flagName(f *flag.Flag) string {
	dashes := "--"
	if len(f.Name) == 1 {
		dashes = "-"
	}
	value, _ := flag.UnquoteUsage(f)
	if own, is := f.Value.(interface{ Placeholder() string }); is {
		value = own.Placeholder()
	}
	return strings.TrimSpace(dashes + f.Name + " " + value)
}

// flagMeaning returns what a flag does and what it is if not given.
func flagMeaning(f *flag.Flag) string {
	_, usage := flag.UnquoteUsage(f)
	if f.DefValue == "" || f.DefValue == "false" {
		return usage
	}
	return fmt.Sprintf("%s (%s)", usage, f.DefValue)
}

// findCommand returns the command that words begin with, and the words behind it.
func findCommand(words []string) (c *command, rest []string, err error) {
	c, err = findNamed(commands(), "", words[0])
	for rest = words[1:]; err == nil && c.parts != nil && len(rest) > 0 && !isHelp(rest[0]); rest = rest[1:] {
		c, err = findNamed(c.parts, c.name, rest[0])
	}
	return c, rest, err
}

// findNamed returns the one of all commands, which are the parts of group, that
// is called name. The error suggests another one if the name resembles it.
func findNamed(all []command, group, name string) (*command, error) {
	name = strings.TrimSpace(group + " " + name)
	if i := slices.IndexFunc(all, func(c command) bool { return c.name == name }); i >= 0 {
		return &all[i], nil
	}
	nearest := slices.MinFunc(all, func(a, b command) int {
		return cmp.Compare(spelling.Distance(name, a.name), spelling.Distance(name, b.name))
	})
	hint := strings.TrimSpace("helios help "+group) + " lists the commands"
	if own := len(nearest.name) - len(group); spelling.Distance(name, nearest.name) <= own/2 {
		hint = "did you mean helios " + nearest.name + "?"
	}
	return nil, usageError(fmt.Sprintf("unknown command %q", name), hint)
}
