package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
)

// A Request says what to look at.
type Request struct {
	Addrs   []string // of companions
	Options client.Options

	// Connect says how a PostgreSQL at host:port is asked by SQL; nil if none is.
	Connect func(addr string) (*pgx.ConnConfig, error)
	Servers []string // host:port of those that are to be asked, besides the members'

	PGData, State string // directories of this machine; "" for none
	Superuser     string // of the server in PGData; "" for postgres
	Certs         string // directory of certificates; "" for none
	Timeout       time.Duration
	Secrets       []string // passwords and tokens, which no finding tells
}

// Look asks everybody at once, and returns when all have answered or their time is up.
func Look(ctx context.Context, r Request) *Picture {
	began := time.Now()
	p := &Picture{Now: began, Addrs: r.Addrs, secrets: r.Secrets}
	asked, err := client.New(r.Addrs, r.Options)
	if err != nil {
		p.Err = err
	} else {
		defer asked.Close()
		p.Overview, p.Err = overviewOf(ctx, asked)
	}
	var looking sync.WaitGroup
	p.lookAtCompanions(ctx, r, &looking)
	p.lookAtServers(ctx, r, &looking)
	p.Local = lookHere(ctx, r, max(1, len(p.Companions)), began)
	looking.Wait()
	p.recognize()
	p.lookAgain(ctx, r)
	p.Local.Jumped = time.Now().Round(0).Sub(began.Round(0)) - time.Since(began)
	return p
}

// How long something may go on before it is worth telling: an election, and the first
// moments of a primary, take no longer.
const (
	passing    = 3 * time.Second
	askedAgain = 200 * time.Millisecond
)

// overviewOf asks until nothing goes on that is over in a moment, but not for long.
func overviewOf(ctx context.Context, c *client.Client) (*api.Overview, error) {
	patience := time.NewTimer(passing)
	defer patience.Stop()
	for {
		o, err := c.Cluster(ctx)
		if err != nil || calm(o) {
			return o, err
		}
		select {
		case <-time.After(askedAgain):
		case <-patience.C:
			return o, nil
		case <-ctx.Done():
			return o, nil
		}
	}
}

// calm reports whether nothing goes on that is over in a moment: somebody leads who has
// heard of every member, and those that are replicas receive WAL.
func calm(o *api.Overview) bool {
	if o.Leader.Name == "" || o.Bulletin == nil {
		return false
	}
	for _, m := range o.Members {
		at := slices.IndexFunc(o.Bulletin.Nodes, nodeNamed(m.Name))
		if at < 0 {
			return false
		}
		n := &o.Bulletin.Nodes[at]
		if astray(o.Bulletin, *n) { // for as long as nobody does something about it
			continue
		}
		if n.State == stateUnknown || n.State == "starting" || n.Role == "replica" && n.State == "up" && !n.Streaming {
			return false
		}
	}
	return true
}

// lookAtCompanions asks each member's companion, and that one only.
func (p *Picture) lookAtCompanions(ctx context.Context, r Request, looking *sync.WaitGroup) {
	if p.Overview == nil {
		return
	}
	p.Companions = make([]Companion, len(p.Overview.Members))
	for i, m := range p.Overview.Members {
		c := &p.Companions[i]
		c.Member = m
		looking.Go(func() { c.Sight, c.Err = lookAt(ctx, r, m.Companion) })
	}
}

// lookAt asks one companion how its node is.
func lookAt(ctx context.Context, r Request, addr string) (*client.Sight, error) {
	asked, err := client.New([]string{addr}, r.Options)
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	return asked.Look(ctx)
}

// lookAgain asks the companions once more, so that a clock that jumped is seen.
func (p *Picture) lookAgain(ctx context.Context, r Request) {
	var looking sync.WaitGroup
	for i := range p.Companions {
		if c := &p.Companions[i]; c.Sight != nil {
			looking.Go(func() { c.Later, _ = lookAt(ctx, r, c.Member.Companion) }) // once was enough to know that it answers
		}
	}
	looking.Wait()
}

// lookAtServers asks every PostgreSQL that is known by SQL.
func (p *Picture) lookAtServers(ctx context.Context, r Request, looking *sync.WaitGroup) {
	if r.Connect == nil {
		return
	}
	names := map[string]string{}
	addrs := slices.Clone(r.Servers)
	if p.Overview != nil {
		for _, m := range p.Overview.Members {
			if m.Postgres != "" {
				names[m.Postgres] = m.Name
				addrs = append(addrs, m.Postgres)
			}
		}
	}
	seen := map[string]bool{}
	for _, addr := range addrs {
		if seen[addr] {
			continue
		}
		seen[addr] = true
		s := Server{Addr: addr, Node: addr}
		if name := names[addr]; name != "" {
			s.Node, s.Member = name, true
		}
		p.Servers = append(p.Servers, s)
	}
	for i := range p.Servers {
		s := &p.Servers[i]
		looking.Go(func() { s.Err = s.look(ctx, r) })
	}
}

// sameStart is how much later than a companion says a server may say that it was started.
const sameStart = 1500 * time.Millisecond

// recognize finds out which member a server is that was asked at another address than the
// member's own, and forgets it if the member was asked there as well.
func (p *Picture) recognize() {
	if p.Overview == nil || p.Overview.Bulletin == nil {
		return
	}
	answered := map[string]bool{}
	for i := range p.Servers {
		if s := &p.Servers[i]; s.Member && s.Err == nil {
			answered[s.Node] = true
		}
	}
	elsewhere := map[string]bool{} // members that only answered at another address
	var kept []Server
	for _, s := range p.Servers {
		name := p.startedAt(s.StartedAt)
		if s.Member || s.Err != nil || name == "" {
			kept = append(kept, s)
		} else if !answered[name] {
			s.Node, s.Member, answered[name], elsewhere[name] = name, true, true, true
			kept = append(kept, s)
		}
	}
	p.Servers = slices.DeleteFunc(kept, func(s Server) bool { return s.Err != nil && elsewhere[s.Node] })
}

// startedAt returns the member whose server was started then; "" if there is none.
func (p *Picture) startedAt(t time.Time) string {
	for i := range p.Overview.Bulletin.Nodes {
		if n := &p.Overview.Bulletin.Nodes[i]; n.StartedAt.Sub(t).Abs() < sameStart {
			return n.Name
		}
	}
	return ""
}

// look asks one server.
func (s *Server) look(ctx context.Context, r Request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Timeout, fmt.Errorf("no answer within %v", r.Timeout))
	defer cancel()
	conf, err := r.Connect(s.Addr)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	if err := s.lookAtSettings(ctx, conn); err != nil {
		return err
	}
	return s.lookAtSlots(ctx, conn)
}

// asked are the parameters that are looked at.
var asked = []string{"wal_log_hints", "data_checksums", "synchronous_standby_names", "max_wal_senders", "max_slot_wal_keep_size"}

func (s *Server) lookAtSettings(ctx context.Context, conn *pgx.Conn) error {
	var id int64
	err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery(), pg_postmaster_start_time(), system_identifier FROM pg_control_system()").
		Scan(&s.InRecovery, &s.StartedAt, &id)
	if err != nil {
		return err
	}
	s.SystemID, s.Settings = uint64(id), map[string]string{}
	rows, err := conn.Query(ctx, "SELECT name, setting FROM pg_settings WHERE name = ANY($1)", asked)
	if err != nil {
		return err
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { s.Settings[name] = value; return nil })
	return err
}

func (s *Server) lookAtSlots(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT slot_name, active, coalesce(wal_status, ''),
		coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
			THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
			ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
		FROM pg_replication_slots`)
	if err != nil {
		return err
	}
	s.Slots, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Slot])
	return err
}

// lookHere looks at files of this machine.
func lookHere(ctx context.Context, r Request, nodes int, now time.Time) Local {
	l := Local{PGData: r.PGData}
	if r.PGData != "" {
		l.lookAtData(ctx, r, nodes)
		l.addDisk("PostgreSQL", r.PGData)
	}
	if r.State != "" {
		l.addDisk("the companion", r.State)
	}
	if r.Certs != "" {
		l.Certs, l.CertsErr = certs.Show(r.Certs, now)
	}
	return l
}

// lookAtData reads the control file, and asks the server if it runs.
func (l *Local) lookAtData(ctx context.Context, r Request, nodes int) {
	dir, err := filepath.Abs(l.PGData)
	if err != nil {
		l.ControlErr = err
		return
	}
	instance, err := pgctl.New(pgctl.Config{Dir: dir, Detached: true, Superuser: r.Superuser})
	if err != nil {
		l.ControlErr = err
		return
	}
	data, err := instance.ControlData(ctx)
	if err != nil {
		l.ControlErr = err
		return
	}
	l.Control = &data
	l.lookAtServer(ctx, instance, nodes, r.Timeout)
}

// lookAtServer checks the server that runs in the data directory, if one does.
func (l *Local) lookAtServer(ctx context.Context, i *pgctl.Instance, nodes int, patience time.Duration) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	defer i.Release() // and never Close, which would end it
	running, err := i.Adopt(ctx)
	if err == nil && running {
		l.Problems, err = i.Check(ctx, pgctl.CheckOptions{Nodes: nodes, Gate: ourStandby})
	}
	if err != nil {
		l.Problems = append(l.Problems, pgctl.Problem{
			What: "cannot be asked: " + err.Error(), Fatal: true,
			Hint: "as the user who owns the data directory, look into PostgreSQL's log; if it is starting, wait",
		})
	}
}

// addDisk looks at the room where dir is, or will be.
func (l *Local) addDisk(what, dir string) {
	at := dir
	for {
		if _, err := os.Stat(at); err == nil || filepath.Dir(at) == at {
			break
		}
		at = filepath.Dir(at)
	}
	if free, total, err := room(at); err == nil {
		l.Disks = append(l.Disks, Disk{What: what, Dir: dir, Free: free, Total: total})
	}
}
