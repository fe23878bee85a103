package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/server/config"
)

// localCompanions is where companions are looked for if nobody says where they are: a
// cluster on one machine has them on neighbouring ports.
const localCompanions = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103"

// A companion is how a command reaches one: its flags, and once open, its client.
type companion struct {
	name                  string // of the command, for errors
	addrs, tls, tokenFile string
	timeout               time.Duration
	asJSON                bool

	options client.Options
	client  *client.Client
}

// flags declares what all commands that ask a companion have.
func (c *companion) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.addrs, "companion", "", "`ADDRS` of companions, host:port,host:port; HELIOS_COMPANION, else this machine's")
	fs.StringVar(&c.tls, "tls", "", "`DIR` with ca.crt and a certificate, of a node or a client; HELIOS_TLS")
	fs.StringVar(&c.tokenFile, "token_file", "", "`FILE` with the token that allows changes; HELIOS_TOKEN_FILE")
	fs.DurationVar(&c.timeout, "timeout", 5*time.Second, "`DURATION` to wait for a companion at most")
	fs.BoolVar(&c.asJSON, "json", false, "print JSON")
}

// companionCommand is a command that asks a companion. bind declares the flags that
// are its own, and returns what it does with a client.
func companionCommand(base command, bind func(*flag.FlagSet, *companion) action) command {
	base.flags = func(fs *flag.FlagSet) action {
		c := &companion{name: base.name}
		do := bind(fs, c)
		c.flags(fs)
		return func(ctx context.Context, s streams, args []string) error {
			if err := c.open(); err != nil {
				return err
			}
			defer c.client.Close()
			return c.explain(do(ctx, s, args))
		}
	}
	return base
}

// show is the action of a command that asks one thing. A program is told the answer,
// people what tell makes of it.
func show[Answer any](c *companion, ask func(context.Context) (Answer, error), tell func(io.Writer, Answer) error) action {
	return func(ctx context.Context, s streams, args []string) error {
		if err := c.noArguments(args); err != nil {
			return err
		}
		answer, err := ask(ctx)
		switch {
		case err != nil:
			return err
		case c.asJSON:
			return writeJSON(s.out, answer)
		}
		return tell(s.out, answer)
	}
}

// noArguments refuses arguments of a command that takes none.
func (c *companion) noArguments(args []string) error {
	if len(args) > 0 {
		return c.usage(fmt.Sprintf("%q is not understood", args[0]))
	}
	return nil
}

// usage says that the command line is wrong.
func (c *companion) usage(what string) error {
	return usageError(c.name+": "+what, "helios help "+c.name)
}

// oneNode returns the only argument, the name of a node.
func (c *companion) oneNode(args []string) (string, error) {
	if len(args) != 1 || args[0] == "" {
		return "", c.usage("want the name of one node; helios status lists them")
	}
	return args[0], nil
}

// open makes the client. Nothing is connected yet.
func (c *companion) open() error {
	if c.timeout <= 0 {
		return c.usage("--timeout must be more than 0")
	}
	c.options.Timeout = c.timeout
	var err error
	if c.options.TLS, err = clientTLS(cmp.Or(c.tls, os.Getenv("HELIOS_TLS"))); err != nil {
		return failed(fmt.Errorf("%s: %w", c.name, err), "helios cert makes certificates; --tls names the directory of one")
	}
	if file := cmp.Or(c.tokenFile, os.Getenv("HELIOS_TOKEN_FILE")); file != "" {
		if c.options.Token, err = config.ReadToken(file); err != nil {
			return failed(fmt.Errorf("%s: %w", c.name, err), "")
		}
	}
	if c.client, err = client.New(c.addresses(), c.options); err != nil {
		return c.usage("--companion: " + err.Error())
	}
	return nil
}

// addresses are where companions are looked for.
func (c *companion) addresses() []string {
	return strings.Split(cmp.Or(c.addrs, os.Getenv("HELIOS_COMPANION"), localCompanions), ",")
}

// clientTLS reads the certificates in dir; nil for no directory.
func clientTLS(dir string) (*tls.Config, error) {
	if dir == "" {
		return nil, nil
	}
	identity, err := certs.Load(dir, nil)
	if err != nil {
		return nil, err
	}
	return identity.Client(), nil
}

// explain gives an error of the client its exit code and its hint.
func (c *companion) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*failure](err); done {
		return err
	}
	f := &failure{code: exitFailed, err: fmt.Errorf("%s: %w", c.name, err)}
	told, refused := errors.AsType[*api.Error](err)
	switch {
	case refused:
		f.hint = cmp.Or(told.Hint, hintOf(told.Code))
		if !passing(told.Code) {
			f.code = exitRefused
		}
	case errors.Is(err, client.ErrUnanswered):
		f.hint = "helios status shows what came of it"
	case errors.Is(err, client.ErrAway):
		f.code, f.hint = exitAway, c.hintAway(err)
	}
	return f
}

// passing reports whether a companion that answers so may answer otherwise soon.
func passing(code api.Code) bool {
	switch code { //nolint:exhaustive // all others are about what was asked
	case api.CodeInternal, api.CodeNoLeader, api.CodeNotLeader, api.CodeBusy, api.CodeClosing, api.CodeTimeout:
		return true
	default:
		return false
	}
}

// hintOf returns what to do about a refusal that came without a hint.
func hintOf(code api.Code) string {
	switch code { //nolint:exhaustive // the others speak for themselves
	case api.CodeUnauthorized, api.CodeForbidden:
		return "give a token with --token_file, or a certificate with --tls"
	case api.CodeNoSuchNode:
		return "helios status lists the nodes"
	case api.CodeNoLeader:
		return "more than half of the companions that vote have to run; helios doctor says which do not"
	default:
		return ""
	}
}

// hintAway says what to do if no companion answers.
func (c *companion) hintAway(err error) string {
	switch {
	case strings.Contains(err.Error(), "malformed HTTP response") || strings.Contains(err.Error(), "server gave HTTP response to HTTPS"):
		return "one side speaks TLS and the other does not: --tls names the directory of a certificate"
	case c.addrs == "" && os.Getenv("HELIOS_COMPANION") == "":
		return "say where a companion is with --companion host:port, or in HELIOS_COMPANION"
	}
	return "do they run, on those ports? journalctl -u helios, or helios server in the foreground, tells why not"
}
