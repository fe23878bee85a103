// Command helios is the tool for people around the driver: it shows what the
// driver does with a cluster, with a statement, and with a failover.
//
// Every subcommand has a file of its own. It declares its flags, gets the
// streams it may use, and returns an error; what is printed about that error,
// and the exit code, are decided in one place:
//
//	helios: <what>
//	hint: <next step>
//
// # Invariants
//
//   - Only main ends the process, so that every deferred clean-up has run.
//   - Results go to the standard output, everything else to the standard error.
//   - No password is ever printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/heliosdb/helios/internal/walbench"
)

func main() {
	// The benchmark of the relay starts this program again for its parts.
	if code, is := walbench.Child(); is {
		os.Exit(code)
	}
	os.Exit(run(context.Background(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// What a process of helios ends with.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitAway        = 3   // no companion could be reached
	exitRefused     = 4   // a companion understood, and would not
	exitInterrupted = 130 // as a shell says it of a process that Ctrl-C ended
)

// streams are what a command reads from and writes to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// A command is one subcommand.
type command struct {
	name    string // with that of the command it is a part of in front, such as "wal dump"
	args    string // what follows the flags in its usage; "" for nothing
	summary string // one phrase
	about   string // what its help says below the usage
	// flags declares the command's flags and returns what it does once they are
	// parsed. The arguments it gets are those that are no flags.
	flags func(*flag.FlagSet) action
	parts []command // what it is made of; then it has no flags and does nothing itself
}

// action does the work of a command.
type action func(ctx context.Context, s streams, args []string) error

// commands returns all subcommands in the order of the help. It is a function,
// since help itself is one of them.
func commands() []command {
	return []command{
		serverCommand(), statusCommand(), watchCommand(), topologyCommand(), lagCommand(), historyCommand(),
		switchoverCommand(), promoteCommand(), failoverCommand(), pauseCommand(), resumeCommand(), maintenanceCommand(),
		settingsCommand(), replicasCommand(), reinitCommand(), doctorCommand(), configCommand(), certCommand(),
		demoCommand(), routeCommand(), pingCommand(), benchCommand(), walCommand(), versionCommand(), helpCommand(),
	}
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	err := dispatch(ctx, args, s)
	if err == nil {
		return exitOK
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{code: exitFailed, err: err}
	}
	f.print(s.err)
	return f.code
}

// dispatch finds the command and gives it its flags and arguments.
func dispatch(ctx context.Context, args []string, s streams) error {
	if len(args) == 0 {
		return usageError("no command given", "helios help lists them")
	}
	if isHelp(args[0]) {
		args[0] = "help"
	}
	c, args, err := findCommand(args)
	switch {
	case err != nil:
		return err
	case c.parts != nil && len(args) > 0 && isHelp(args[0]):
		return c.help(s.out)
	case c.parts != nil:
		return usageError(c.name+": does nothing by itself", "helios help "+c.name+" lists what it has")
	}
	fs := newFlagSet(c.name)
	do := c.flags(fs)
	rest, err := parseFlags(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return c.help(s.out)
	case err != nil:
		return usageError(c.name+": "+err.Error(), "helios help "+c.name)
	}
	return do(ctx, s, rest)
}

// isHelp reports whether arg asks for help in another way than "helios help".
func isHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

// newFlagSet returns an empty set that reports errors and prints nothing.
func newFlagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// parseFlags parses flags before, between and behind the other arguments, which
// it returns. After "--" nothing is a flag; neither is what has white space in
// it, such as an SQL text that begins with a comment.
func parseFlags(fs *flag.FlagSet, args []string) (rest []string, err error) {
	args = underscored(fs, args)
	for len(args) > 0 {
		switch first := args[0]; {
		case first == "--":
			return append(rest, args[1:]...), nil
		case !strings.HasPrefix(first, "-"), first == "-", strings.ContainsAny(first, " \t\r\n"):
			rest, args = append(rest, first), args[1:]
			continue
		}
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if at := len(args) - fs.NArg(); args[at-1] == "--" {
			return append(rest, fs.Args()...), nil
		}
		args = fs.Args()
	}
	return rest, nil
}

// underscored returns args with the dashes inside the names of flags as they are
// declared: whoever types --token-file means --token_file.
func underscored(fs *flag.FlagSet, args []string) []string {
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		word := strings.TrimLeft(arg, "-")
		name, value, valued := strings.Cut(word, "=")
		declared := strings.ReplaceAll(name, "-", "_")
		if word == arg || declared == name || fs.Lookup(name) != nil || fs.Lookup(declared) == nil {
			continue
		}
		args[i] = arg[:len(arg)-len(word)] + declared
		if valued {
			args[i] += "=" + value
		}
	}
	return args
}

// A failure is an error with the exit code and the advice that go with it.
type failure struct {
	code int
	err  error
	hint string // "" for none
}

// Error says what failed.
func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns what failed.
func (f *failure) Unwrap() error { return f.err }

// print writes the failure as people see it: what happened is one line.
func (f *failure) print(w io.Writer) {
	text := strings.ReplaceAll(f.err.Error(), "\n", "; ")
	fmt.Fprintf(w, "helios: %s\n", strings.TrimPrefix(text, "helios: "))
	if f.hint != "" {
		fmt.Fprintf(w, "hint: %s\n", f.hint)
	}
}

// usageError says that the command line itself is wrong.
func usageError(what, hint string) error {
	return &failure{code: exitUsage, err: errors.New(what), hint: hint}
}

// failed says that a well-formed command did not do what it was asked.
func failed(err error, hint string) error {
	return &failure{code: exitFailed, err: err, hint: hint}
}
