package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/doctor"
)

// doctorCommand finds what is wrong with a cluster.
func doctorCommand() command {
	return companionCommand(command{
		name:    "doctor",
		summary: "find what is wrong with a cluster, and say how to mend it",
		about: `It asks the companions; with --dsn also every PostgreSQL, as that user; with --pgdata, --state
and --tls also what is on this machine. It changes nothing.

Problems are told first, then what somebody has switched off. The exit code is 1 if there is
a problem.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		e := &examining{companion: c}
		fs.StringVar(&e.dsn, "dsn", "", "`DSN` by which PostgreSQL is asked; its hosts, and those of all members")
		fs.StringVar(&e.pgdata, "pgdata", "", "`DIR` of data on this machine")
		fs.StringVar(&e.superuser, "superuser", "", "`NAME` of the superuser of the server in --pgdata (postgres)")
		fs.StringVar(&e.state, "state", "", "`DIR` of what the companion on this machine remembers; beside --pgdata if not given")
		return e.run
	})
}

// examining is one run of the command.
type examining struct {
	companion                     *companion
	dsn, pgdata, state, superuser string
}

// run looks, and tells what it has found.
func (e *examining) run(ctx context.Context, s streams, args []string) error {
	if err := e.companion.noArguments(args); err != nil {
		return err
	}
	request, err := e.request()
	if err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("doctor: --dsn: %w", plain(err)), hint: "helios help doctor"}
	}
	findings := doctor.Look(ctx, request).Findings()
	problems := 0
	for i := range findings {
		if findings[i].Severity == doctor.Problem {
			problems++
		}
	}
	if e.companion.asJSON {
		err = writeJSON(s.out, append([]doctor.Finding{}, findings...))
	} else {
		err = writeFindings(s.out, findings)
	}
	if err == nil && problems > 0 {
		err = failed(fmt.Errorf("doctor: %s", count(problems, "problem")), "")
	}
	return err
}

// request says what is looked at.
func (e *examining) request() (doctor.Request, error) {
	c := e.companion
	r := doctor.Request{
		Addrs: c.addresses(), Options: c.options, Timeout: c.timeout,
		PGData: e.pgdata, State: e.state, Superuser: e.superuser, Certs: cmp.Or(c.tls, os.Getenv("HELIOS_TLS")),
		Secrets: []string{c.options.Token},
	}
	if r.State == "" && r.PGData != "" {
		r.State = strings.TrimRight(r.PGData, "/") + ".helios"
	}
	if e.dsn == "" {
		return r, nil
	}
	cfg, err := helios.ParseDSN(e.dsn)
	if err != nil {
		return r, err
	}
	for _, host := range cfg.Hosts {
		r.Servers = append(r.Servers, host.String())
	}
	r.Secrets = append(r.Secrets, cfg.Password)
	r.Connect = func(addr string) (*pgx.ConnConfig, error) { return connectTo(cfg, addr) }
	return r, nil
}

// connectTo says how the server at addr is connected to, as cfg says for all.
func connectTo(cfg *helios.Config, addr string) (*pgx.ConnConfig, error) {
	for _, host := range cfg.Hosts {
		if host.String() == addr {
			return cfg.ConnConfig(host)
		}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return cfg.ConnConfig(helios.Host{Host: host, Port: uint16(n)})
}

// writeFindings writes three lines for each.
func writeFindings(w io.Writer, findings []doctor.Finding) error {
	colours := colourful(w)
	for i := range findings {
		f := &findings[i]
		subject := ""
		if f.Node != "" {
			subject = f.Node + ": "
		}
		shade := badShade
		if f.Severity == doctor.Note {
			shade = warnShade
		}
		_, err := fmt.Fprintf(w, "%s  %s%s\n    why: %s\n    do:  %s\n", paint(string(f.Severity), shade, colours), subject, f.What, f.Why, f.Fix)
		if err != nil {
			return err
		}
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintln(w, "nothing is wrong")
		return err
	}
	return nil
}
