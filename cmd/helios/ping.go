package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/heliosdb/helios"
)

// pingCommand asks every node of a cluster what it is.
func pingCommand() command {
	return command{
		name:    "ping",
		args:    "DSN",
		summary: "ask every node of a cluster what it is",
		about: `DSN is what a program gives to sql.Open("helios", …), such as
helios://app@db1,db2,db3/shop. A password is better left out of it: PGPASSWORD and
the password file are read as usual.

The exit code is 1 if no node takes writes.`,
		flags: func(fs *flag.FlagSet) action {
			p := &ping{}
			fs.BoolVar(&p.asJSON, "json", false, "print a JSON object")
			fs.DurationVar(&p.timeout, "timeout", 5*time.Second, "`DURATION` to wait for the nodes at most")
			return p.run
		},
	}
}

// ping is one run of the command.
type ping struct {
	asJSON  bool
	timeout time.Duration
}

// run opens the cluster, waits for its nodes and prints them.
func (p *ping) run(ctx context.Context, s streams, args []string) error {
	switch {
	case len(args) != 1:
		return usageError("ping: want one DSN", "helios ping helios://app@db1,db2,db3/shop")
	case p.timeout <= 0:
		return usageError("ping: --timeout must be more than 0", "helios help ping")
	}
	cfg, err := helios.ParseDSN(args[0])
	if err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("ping: %w", plain(err)), hint: "helios help ping"}
	}
	status, err := p.ask(ctx, cfg)
	if err != nil {
		return failed(fmt.Errorf("ping: %w", plain(err)), "")
	}
	conceal(&status, cfg.Password)
	if err := p.print(s.out, status); err != nil {
		return err
	}
	return verdict(status)
}

// plain drops the prefix that the driver's errors and this program share.
func plain(err error) error {
	if text, ok := strings.CutPrefix(err.Error(), "helios: "); ok {
		return errors.New(text)
	}
	return err
}

// ask returns what the nodes answered within the timeout.
func (p *ping) ask(ctx context.Context, cfg *helios.Config) (helios.Status, error) {
	cfg.ProbeTimeout = min(cfg.ProbeTimeout, p.timeout)
	connector, err := helios.NewConnector(cfg)
	if err != nil {
		return helios.Status{}, err
	}
	db := sql.OpenDB(connector)
	defer db.Close() //nolint:errcheck // nothing was written
	cluster, err := helios.ClusterOf(db)
	if err != nil {
		return helios.Status{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	// It waits until every node has answered or failed, and it is no error for
	// us that none of them is a replica.
	_, err = cluster.ReplicaForRead(ctx, cfg.Balance)
	if err != nil && !errors.Is(err, helios.ErrNoReplica) {
		return helios.Status{}, err
	}
	status := cluster.Status()
	for i := range status.Nodes {
		if n := &status.Nodes[i]; n.State == "unknown" {
			n.Reason = cmp.Or(n.Reason, fmt.Sprintf("no answer within %v", p.timeout))
		}
	}
	return status, nil
}

// conceal takes a password out of what the nodes are said to suffer from.
func conceal(status *helios.Status, password string) {
	if password == "" {
		return
	}
	for i := range status.Nodes {
		status.Nodes[i].Reason = strings.ReplaceAll(status.Nodes[i].Reason, password, "…")
	}
}

// verdict is the error of a cluster that takes no writes.
func verdict(status helios.Status) error {
	switch {
	case status.Split:
		return failed(errors.New("ping: two nodes say that they are the primary of one timeline"), "stop one of them; helios refuses writes until then")
	case status.Primary == "":
		return failed(errors.New("ping: no node is a primary that takes writes"), "the reasons stand beside the nodes; promote a replica if the primary is gone")
	default:
		return nil
	}
}

// print writes one line per node, or the status as JSON.
func (p *ping) print(w io.Writer, status helios.Status) error {
	if p.asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(status)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "NODE\tROLE\tSTATE\tTIMELINE\tLSN\tLAG\tROUND TRIP\tVERSION\tREASON\n")
	for i := range status.Nodes {
		fmt.Fprintln(table, strings.TrimRight(strings.Join(row(&status.Nodes[i]), "\t"), "\t"))
	}
	return table.Flush()
}

// row is one node as a line of the table.
func row(n *helios.NodeStatus) []string {
	cells := []string{n.Name, n.Role, n.State, "-", "-", "-", "-", "-", n.Reason}
	if n.SeenAt.IsZero() {
		return cells
	}
	lsn, lag := n.ReplayLSN, "-"
	switch {
	case n.Role == "primary":
		lsn = n.CurrentLSN
	case n.Lag >= 0:
		lag = n.Lag.Round(time.Millisecond).String()
	}
	cells[3], cells[4], cells[5] = n.Timeline.String(), lsn.String(), lag
	cells[6], cells[7] = n.RTT.Round(10*time.Microsecond).String(), version(n.Version)
	return cells
}

// version writes a server_version_num as people know it, such as 15.18.
func version(num int) string { return fmt.Sprintf("%d.%d", num/10000, num%10000) }
