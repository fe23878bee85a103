package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/heliosdb/helios/server/api"
)

// replicasCommand is about the members of a cluster.
func replicasCommand() command {
	return command{
		name:    "replicas",
		args:    "COMMAND",
		summary: "list a cluster's members, add and remove some",
		about:   "A member is a companion, with the PostgreSQL beside it unless it is a witness.",
		parts:   []command{replicasListCommand(), replicasAddCommand(), replicasRemoveCommand()},
	}
}

// replicasListCommand lists the members.
func replicasListCommand() command {
	return companionCommand(command{
		name:    "replicas list",
		summary: "list members with their addresses, votes and duties",
		about:   "helios status shows how they are.",
	}, func(_ *flag.FlagSet, c *companion) action {
		return func(ctx context.Context, s streams, args []string) error {
			if err := c.noArguments(args); err != nil {
				return err
			}
			overview, err := c.client.Cluster(ctx)
			switch {
			case err != nil:
				return err
			case c.asJSON:
				return writeJSON(s.out, overview.Members)
			}
			return writeMembers(s.out, overview)
		}
	})
}

// writeMembers writes a line for each member.
func writeMembers(w io.Writer, o *api.Overview) error {
	t := newTable("MEMBER", "COMPANION", "POSTGRES", "VOTES", "CANDIDATE", "SYNC", "PRIORITY", "ZONE")
	for _, m := range o.Members {
		t.add(cell{m.Name, boldIf(m.Name == o.Primary)}, cell{text: m.Companion}, cell{text: cmp.Or(m.Postgres, dash)},
			yes(!m.NonVoter), yes(m.Candidate()), yes(m.CanSync()), cell{text: fmt.Sprint(m.Priority)}, cell{text: cmp.Or(m.Zone, dash)})
	}
	return t.write(w)
}

func yes(is bool) cell {
	if is {
		return cell{text: "yes"}
	}
	return cell{"no", dimShade}
}

// replicasAddCommand says how a member is added.
func replicasAddCommand() command {
	return companionCommand(command{
		name:    "replicas add",
		args:    "NAME",
		summary: "print the command that makes a machine a member",
		about: `A member adds itself: the command is for the machine that is to become one, and clones
the primary's data into --pgdata if that is empty. Nothing is changed by printing it.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		a := &adding{companion: c}
		fs.StringVar(&a.pgdata, "pgdata", "", "`DIR` of its data, there")
		fs.StringVar(&a.host, "host", "", "`HOST` by which the others will reach it")
		fs.BoolVar(&a.witness, "witness", false, "it is to vote only, without PostgreSQL")
		return a.run
	})
}

// adding is one run of replicas add.
type adding struct {
	companion    *companion
	pgdata, host string
	witness      bool
}

// run prints the command.
func (a *adding) run(ctx context.Context, s streams, args []string) error {
	name, err := a.companion.oneNode(args)
	if err != nil {
		return err
	}
	overview, err := a.companion.client.Cluster(ctx)
	if err != nil {
		return err
	}
	for _, m := range overview.Members {
		if m.Name == name {
			return a.companion.usage(name + " is a member already; start its companion as it was started before")
		}
	}
	_, err = fmt.Fprintln(s.out, a.command(name, overview))
	return err
}

// command is what makes a machine the member of that name.
func (a *adding) command(name string, o *api.Overview) string {
	parts := []string{"helios", "server", "--name", shellWord(name)}
	if a.witness {
		parts = append(parts, "--witness", "--state", "/var/lib/helios/"+name)
	} else {
		parts = append(parts, "--pgdata", shellWord(cmp.Or(a.pgdata, "/var/lib/postgresql/"+name)))
	}
	if a.host != "" {
		parts = append(parts, "--listen", "0.0.0.0:7101", "--advertise", shellWord(a.host+":7101"))
	}
	if a.companion.tls != "" {
		parts = append(parts, "--tls", "/etc/helios/tls")
	}
	var join []string
	for _, m := range o.Members {
		join = append(join, m.Companion)
	}
	return strings.Join(append(parts, "--join", strings.Join(join, ",")), " ")
}

// shellWord quotes s for a shell if it has to be.
func shellWord(s string) string {
	if s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789_-./:,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// replicasRemoveCommand takes a member out for good.
func replicasRemoveCommand() command {
	return orderCommand(command{
		name:    "replicas remove",
		args:    "NODE",
		summary: "take a member out of the cluster for good",
		about: `Its vote goes, and nobody waits for it any more. Stop its companion first. The primary
cannot be removed: helios switchover moves it. Its data stays where it is.`,
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			node, err := c.oneNode(args)
			if err != nil {
				return nil, err
			}
			return c.client.Remove(ctx, node)
		}
	})
}
