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
	"strconv"
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
	answer := answerOf(status, cfg.Password)
	if err := answer.write(s.out, p.asJSON); err != nil {
		return err
	}
	return answer.verdict()
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
	status := awaitCompanion(ctx, cluster)
	for i := range status.Nodes {
		if n := &status.Nodes[i]; n.State == "unknown" {
			n.Reason = cmp.Or(n.Reason, fmt.Sprintf("no answer within %v", p.timeout))
		}
	}
	return status, nil
}

// awaitCompanion returns the status of the cluster once a companion was heard, or
// was asked in vain, if the DSN names any.
func awaitCompanion(ctx context.Context, cluster *helios.Cluster) helios.Status {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		status := cluster.Status()
		if of := status.Companion; of == nil || of.Heard || of.Reason != "" || ctx.Err() != nil {
			return status
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// answer is what is printed of a cluster.
type answer struct {
	SystemID uint64       `json:"system_id,string"` // too large for the numbers of some JSON readers
	Primary  string       `json:"primary"`          // "" if no node takes writes
	Split    bool         `json:"split_brain"`      // two primaries on one timeline
	Nodes    []nodeAnswer `json:"nodes"`

	Companion *helios.CompanionStatus `json:"companion,omitempty"` // left out if the DSN names none
}

// nodeAnswer is one node's part. What it has not told is left out.
type nodeAnswer struct {
	Name      string   `json:"name"`
	Role      string   `json:"role"`
	State     string   `json:"state"`
	Reason    string   `json:"reason,omitempty"` // why it is not up
	Timeline  uint32   `json:"timeline,omitempty"`
	LSN       string   `json:"lsn,omitempty"` // written by a primary, replayed by a replica
	LagMS     *float64 `json:"lag_ms,omitempty"`
	RoundTrip *float64 `json:"round_trip_ms,omitempty"`
	Version   string   `json:"server_version,omitempty"`
}

// answerOf takes what is printed out of a status, but for the password.
func answerOf(status helios.Status, password string) answer {
	a := answer{SystemID: status.SystemID, Primary: status.Primary, Split: status.Split, Companion: status.Companion}
	for i := range status.Nodes {
		n := nodeAnswerOf(&status.Nodes[i])
		if password != "" {
			n.Reason = strings.ReplaceAll(n.Reason, password, "…")
		}
		a.Nodes = append(a.Nodes, n)
	}
	return a
}

// nodeAnswerOf takes what is printed out of one node's status.
func nodeAnswerOf(n *helios.NodeStatus) nodeAnswer {
	a := nodeAnswer{Name: n.Name, Role: n.Role, State: n.State, Reason: n.Reason}
	if n.SeenAt.IsZero() {
		return a
	}
	lsn := n.ReplayLSN
	if n.Role == "primary" {
		lsn = n.CurrentLSN
	} else if n.Lag >= 0 {
		a.LagMS = new(milliseconds(n.Lag))
	}
	a.Timeline, a.LSN = uint32(n.Timeline), lsn.String()
	a.RoundTrip = new(milliseconds(n.RTT))
	a.Version = fmt.Sprintf("%d.%d", n.Version/10000, n.Version%10000)
	return a
}

// verdict is the error of a cluster that takes no writes.
func (a *answer) verdict() error {
	switch {
	case a.Split:
		return failed(errors.New("ping: two nodes say that they are the primary of one timeline"), "stop one of them; helios refuses writes until then")
	case a.Primary == "":
		return failed(errors.New("ping: no node is a primary that takes writes"), "the reasons stand beside the nodes; if all of them are replicas, name the primary in the DSN too, or promote one if it is gone for good")
	default:
		return nil
	}
}

// write prints one line per node, or an object.
func (a *answer) write(w io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(a)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "NODE\tROLE\tSTATE\tTIMELINE\tLSN\tLAG\tROUND TRIP\tVERSION\tREASON\n")
	for i := range a.Nodes {
		fmt.Fprintln(table, strings.Join(a.Nodes[i].row(), "\t"))
	}
	if err := table.Flush(); err != nil || a.Companion == nil {
		return err
	}
	_, err := fmt.Fprintf(w, "companions: %s\n", a.Companion)
	return err
}

// row is the node as a line of the table.
func (n *nodeAnswer) row() []string {
	timeline := "-"
	if n.Timeline != 0 {
		timeline = strconv.FormatUint(uint64(n.Timeline), 10)
	}
	return []string{n.Name, n.Role, n.State, timeline, cmp.Or(n.LSN, "-"), inMS(n.LagMS), inMS(n.RoundTrip), cmp.Or(n.Version, "-"), n.Reason}
}

// inMS writes a time in milliseconds; nil is one that is not known.
func inMS(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return fmt.Sprintf("%.1fms", *ms)
}
