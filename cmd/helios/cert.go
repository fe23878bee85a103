package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/heliosdb/helios/internal/certs"
)

// certCommand makes certificates.
func certCommand() command {
	return command{
		name:    "cert",
		args:    "COMMAND",
		summary: "make and look at the certificates of a cluster",
		about: `An authority in a directory of its own signs what nodes and operators have:

  helios cert init --dir ca
  helios cert node --dir ca --name n1 --host db1,10.0.0.1
  helios cert client --dir ca --name ops

Each makes a directory, such as ca/n1, that is copied to its machine and named there with
--tls. ca.key signs whatever it is asked to: keep it away from the servers.`,
		parts: []command{certInitCommand(), certNodeCommand(), certClientCommand(), certRenewCommand(), certShowCommand()},
	}
}

// making is a run of a command that makes a certificate.
type making struct {
	name    string // of the command
	request certs.Request
	hosts   string
	local   bool
}

// certMaker is a command that makes a certificate.
func certMaker(base command, bind func(*flag.FlagSet, *making) action) command {
	base.flags = func(fs *flag.FlagSet) action {
		m := &making{name: base.name}
		fs.StringVar(&m.request.Dir, "dir", "ca", "`DIR` of the authority")
		do := bind(fs, m)
		return func(ctx context.Context, s streams, args []string) error {
			m.request.Now = time.Now()
			return m.explain(do(ctx, s, args))
		}
	}
	return base
}

// leafFlags declares what certificates of nodes and clients have in common.
func (m *making) leafFlags(fs *flag.FlagSet) {
	fs.StringVar(&m.request.Name, "name", "", "`NAME` of it")
	fs.StringVar(&m.request.Out, "out", "", "`DIR` for the files; one called NAME below --dir if not given")
	m.makerFlags(fs, certs.LeafDays)
}

// makerFlags declares what all that are made have in common.
func (m *making) makerFlags(fs *flag.FlagSet, days int) {
	fs.IntVar(&m.request.Days, "days", days, "`N` days that it is good for")
	fs.BoolVar(&m.request.Force, "force", false, "overwrite what is there")
}

// check refuses what is no command line.
func (m *making) check(args []string) error {
	switch {
	case len(args) > 0:
		return usageError(fmt.Sprintf("%s: %q is not understood", m.name, args[0]), "helios help "+m.name)
	case m.request.Days < 1:
		return usageError(m.name+": --days must be 1 or more", "helios help "+m.name)
	}
	return nil
}

// explain adds what to do about an error.
func (m *making) explain(err error) error {
	if _, done := errors.AsType[*failure](err); done || err == nil {
		return err
	}
	hint := ""
	switch {
	case errors.Is(err, os.ErrExist):
		err, hint = fmt.Errorf("%s: %s", m.name, strings.ReplaceAll(err.Error(), "file already exists", "is there already")), "--force overwrites it; helios cert renew signs it again"
		return failed(err, hint)
	case errors.Is(err, os.ErrNotExist):
		hint = "helios cert init makes an authority"
	}
	return failed(fmt.Errorf("%s: %w", m.name, err), hint)
}

// certInitCommand makes an authority.
func certInitCommand() command {
	return certMaker(command{
		name:    "cert init",
		summary: "make the authority of a cluster",
		about:   "It is the first step. Whoever has ca.key can make himself a node.",
	}, func(fs *flag.FlagSet, m *making) action {
		m.makerFlags(fs, certs.AuthorityDays)
		return func(_ context.Context, s streams, args []string) error {
			if err := m.check(args); err != nil {
				return err
			}
			if err := certs.Init(m.request); err != nil {
				return err
			}
			_, err := fmt.Fprintf(s.out, "%s and %s; keep the key away from the servers\n",
				filepath.Join(m.request.Dir, certs.AuthorityFile), filepath.Join(m.request.Dir, certs.AuthorityKeyFile))
			return err
		}
	})
}

// certNodeCommand makes a node's certificate.
func certNodeCommand() command {
	return certMaker(command{
		name:    "cert node",
		args:    "--name NAME --host HOSTS",
		summary: "make the certificate of a node",
		about: `HOSTS are all names and addresses by which other nodes, drivers and operators reach it. Its
common name is helios, so that it is also good for PostgreSQL, as a server's and as that of
the role helios.`,
	}, func(fs *flag.FlagSet, m *making) action {
		m.leafFlags(fs)
		fs.StringVar(&m.hosts, "host", "", "`HOSTS`, separated by commas")
		fs.BoolVar(&m.local, "local", false, "also for localhost, 127.0.0.1 and ::1")
		return func(_ context.Context, s streams, args []string) error {
			if err := m.check(args); err != nil {
				return err
			}
			for host := range strings.SplitSeq(m.hosts, ",") {
				if host = strings.TrimSpace(host); host != "" {
					m.request.Hosts = append(m.request.Hosts, host)
				}
			}
			if m.local {
				m.request.Hosts = append(m.request.Hosts, "localhost", "127.0.0.1", "::1")
			}
			dir, err := certs.Node(m.request)
			return m.made(s.out, dir, err, "ca.crt, node.crt and node.key; copy them to the node, for helios server --tls")
		}
	})
}

// made says what was made.
func (m *making) made(w io.Writer, dir string, err error, text string) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s: %s\n", dir, text)
	return err
}

// certClientCommand makes an operator's certificate.
func certClientCommand() command {
	return certMaker(command{
		name:    "cert client",
		args:    "--name NAME",
		summary: "make the certificate of an operator or a program",
		about:   "Who has it may give orders to companions. It is no node, and no role of PostgreSQL but NAME.",
	}, func(fs *flag.FlagSet, m *making) action {
		m.leafFlags(fs)
		return func(_ context.Context, s streams, args []string) error {
			if err := m.check(args); err != nil {
				return err
			}
			dir, err := certs.Client(m.request)
			return m.made(s.out, dir, err, "ca.crt, client.crt and client.key; name it with --tls, or in HELIOS_TLS")
		}
	})
}

// certRenewCommand signs certificates again.
func certRenewCommand() command {
	return certMaker(command{
		name:    "cert renew",
		args:    "[DIR...]",
		summary: "sign certificates again, with the same names, from now on",
		about: `DIR is that of a node or client; it gets a new key. Without one it is the authority, which
keeps its key, so that what it has signed stays good. Companions take new files within
a second, without a restart.`,
	}, func(_ *flag.FlagSet, m *making) action {
		return func(_ context.Context, s streams, args []string) error {
			if len(args) == 0 {
				args = []string{m.request.Dir}
			}
			for _, dir := range args {
				if err := certs.Renew(m.request, dir); err != nil {
					return err
				}
				if _, err := fmt.Fprintf(s.out, "%s: renewed\n", dir); err != nil {
					return err
				}
			}
			return nil
		}
	})
}

// certShowCommand shows what certificates say.
func certShowCommand() command {
	return command{
		name:    "cert show",
		args:    "DIR...",
		summary: "show what certificates say, and until when they are good",
		about:   "The exit code is 1 if one of them cannot be used.",
		flags: func(fs *flag.FlagSet) action {
			asJSON := fs.Bool("json", false, "print a JSON array")
			return func(_ context.Context, s streams, args []string) error {
				if len(args) == 0 {
					return usageError("cert show: want directories", "helios help cert show")
				}
				return showCerts(s.out, args, *asJSON, time.Now())
			}
		},
	}
}

// showCerts prints the certificates in dirs.
func showCerts(w io.Writer, dirs []string, asJSON bool, now time.Time) error {
	var all []certs.Info
	for _, dir := range dirs {
		infos, err := certs.Show(dir, now)
		if err != nil {
			return failed(fmt.Errorf("cert show: %w", err), "")
		}
		all = append(all, infos...)
	}
	err := writeCerts(w, all, asJSON, now)
	for i := range all {
		if err == nil && all[i].Problem != "" {
			err = failed(fmt.Errorf("cert show: %s: %s", all[i].File, all[i].Problem), "helios cert renew signs a certificate again")
		}
	}
	return err
}

// writeCerts writes a line for each certificate.
func writeCerts(w io.Writer, all []certs.Info, asJSON bool, now time.Time) error {
	if asJSON {
		return writeJSON(w, all)
	}
	t := newTable("FILE", "KIND", "NAME", "HOSTS", "UNTIL", "LEFT", "PROBLEM")
	for i := range all {
		info := &all[i]
		left := info.NotAfter.Sub(now)
		t.add(cell{text: info.File}, cell{text: info.Kind}, cell{text: info.Name}, cell{text: strings.Join(info.Hosts, ",")},
			cell{text: info.NotAfter.UTC().Format("2006-01-02")}, cell{text: fmt.Sprintf("%dd", int(left.Hours()/24))}, cell{info.Problem, badShade})
	}
	return t.write(w)
}
