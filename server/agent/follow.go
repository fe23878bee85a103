package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal/relay"
)

var errSealed = errors.New("agent: the epoch is sealed")

// setSource changes where the relay takes WAL from in epoch, unless it is so
// already, or the epoch is closed.
func (a *Agent) setSource(epoch failover.Epoch, name string, source []*pgconn.Config) error {
	a.source.Lock()
	defer a.source.Unlock()
	if epoch < a.promises.get().newest() {
		return errSealed
	}
	if err := a.promises.change(func(p *promise) { p.Taken = max(p.Taken, epoch) }); err != nil {
		return err
	}
	if err := a.setSourceLocked(name, source); err != nil {
		return err
	}
	a.follows.Store(uint64(epoch))
	return nil
}

// isSourced reports whether the relay takes WAL from there in epoch already.
func (a *Agent) isSourced(epoch failover.Epoch, name string) bool {
	a.source.Lock()
	defer a.source.Unlock()
	return name == a.sourced && failover.Epoch(a.follows.Load()) == epoch && epoch >= a.promises.get().newest()
}

func (a *Agent) setSourceLocked(name string, source []*pgconn.Config) error {
	if name == a.sourced {
		return nil
	}
	if err := a.relay.SetSource(source); err != nil {
		return err
	}
	a.sourced = name
	return nil
}

// retrySource has the relay try its source at once, if it has lost it.
func (a *Agent) retrySource() {
	a.source.Lock()
	defer a.source.Unlock()
	if !a.relay.Status().Connected {
		a.sourced = ""
	}
}

// sourceLocal has the relay take WAL from the local server, which is the primary
// or about to be it.
func (a *Agent) sourceLocal(epoch failover.Epoch) error {
	name := a.localSource()
	if a.isSourced(epoch, name) {
		return nil
	}
	cfg, err := pgconn.ParseConfig(a.pg.ConnString())
	if err != nil {
		return err
	}
	a.gate.at(relay.Address(cfg))
	return a.setSource(epoch, name, []*pgconn.Config{cfg})
}

// localSource names the local server as a source.
func (a *Agent) localSource() string { return "local " + a.pg.ConnString() }

// sourceFrom has the relay take WAL from a member: from its companion, else from
// its server.
func (a *Agent) sourceFrom(epoch failover.Epoch, m failover.Member) error {
	name := fmt.Sprintf("%s %s %s", m.Name, m.Companion, m.Postgres)
	if a.isSourced(epoch, name) {
		return nil
	}
	var sources []*pgconn.Config
	for _, relay := range []bool{true, false} {
		cfg, err := a.cfg.PeerConn(m, relay)
		if err != nil {
			return fmt.Errorf("agent: how %s is connected to: %w", m.Name, err)
		}
		sources = append(sources, cfg)
	}
	return a.setSource(epoch, name, sources)
}

// follow keeps a standby behind the primary.
func (a *Agent) follow(ctx context.Context, as failover.Assignment) error {
	a.mu.Lock()
	at := a.facts.position()
	a.mu.Unlock()
	if a.isAstray(at) {
		a.quarantine(ctx, as)
		return nil
	}
	if err := a.sourceFrom(as.Epoch, as.Primary); err != nil {
		return err
	}
	if a.isDiverged(as) {
		a.quarantine(ctx, as)
		return nil
	}
	a.lead(ctx)
	if err := a.point(ctx, a.conninfoTo(as.Primary)); err != nil {
		return err
	}
	return a.ensure(ctx)
}

// conninfoTo returns the primary_conninfo of a standby of m: the own relay, and
// while that is away the primary itself. Of nobody it is the own relay alone.
func (a *Agent) conninfoTo(m failover.Member) string {
	// A silent upstream is left soon, so that the next one is tried.
	return a.conninfo(a.cfg.RelayAddr, m.Postgres) + " application_name=" + quoteConninfo(a.cfg.Name) +
		fmt.Sprintf(" connect_timeout=3 keepalives_idle=5 keepalives_interval=2 keepalives_count=%d", 2+a.turns.Load()%2)
}

// serverOf is how pg_basebackup and pg_rewind connect to a member's server.
func (a *Agent) serverOf(m failover.Member) string {
	return a.conninfo(m.Postgres) + " dbname=postgres"
}

// conninfo returns how the first of the addresses that answers is connected to;
// what is no address is left out.
func (a *Agent) conninfo(addresses ...string) string {
	var hosts, ports []string
	for _, addr := range addresses {
		if host, port, err := net.SplitHostPort(addr); err == nil {
			hosts, ports = append(hosts, host), append(ports, port)
		}
	}
	return fmt.Sprintf("host=%s port=%s %s", quoteConninfo(strings.Join(hosts, ",")), strings.Join(ports, ","), a.cfg.Conninfo)
}

// quoteConninfo quotes a value for a connection string.
func quoteConninfo(s string) string {
	if s != "" && !strings.ContainsAny(s, ` '\`) {
		return s
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// point writes primary_conninfo if it is another one, and has the server read it.
func (a *Agent) point(ctx context.Context, conninfo string) error {
	a.mu.Lock()
	same := a.pointed == conninfo
	a.mu.Unlock()
	if same {
		return nil
	}
	settings, err := a.pg.Settings()
	if err != nil {
		return err
	}
	if settings["primary_conninfo"] != conninfo {
		if err := a.pg.SetStandby(conninfo); err != nil {
			return err
		}
	}
	if err := a.pg.Reload(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	a.pointed = conninfo
	a.mu.Unlock()
	poke(a.look)
	return nil
}

// misledFor is how long a walreceiver may be at another upstream than the own
// relay: that one may have been away, and the standby gone to the primary itself.
const misledFor = 500 * time.Millisecond

// lead brings a walreceiver back that has gone to another upstream than the own
// relay, which alone tells the primary's gate how far the standby is. There is no
// signal for that (pg_terminate_backend knows backends only), but a walreceiver
// connects again, to the first host that answers, when primary_conninfo changes:
// then by something that makes no difference.
func (a *Agent) lead(ctx context.Context) {
	now, connected := a.clock(), a.relay.Status().Connected
	a.mu.Lock()
	astray := a.facts.Receiver && net.JoinHostPort(a.facts.Host, fmt.Sprint(a.facts.Port)) != a.cfg.RelayAddr && connected
	switch {
	case !astray:
		a.misled = 0
	case a.misled == 0:
		a.misled = now
	}
	long := astray && now-a.misled >= misledFor
	if long {
		a.misled = now // it is given time again
		a.turns.Add(1)
	}
	a.mu.Unlock()
	if long {
		a.log.InfoContext(ctx, "the standby streams from elsewhere, and is brought back to its relay")
	}
}

// isDiverged reports whether the standby has WAL that is not in the past of the
// primary's timeline.
func (a *Agent) isDiverged(as failover.Assignment) bool {
	a.mu.Lock()
	at, known := a.facts.position(), a.known && a.facts.Recovery
	a.mu.Unlock()
	if !known || as.Phase != failover.PhaseReady || at.Timeline >= as.Timeline {
		return false
	}
	if as.SwitchLSN != 0 && at.LSN > as.SwitchLSN {
		return true
	}
	return a.relay.Replicator().Position().Timeline >= as.Timeline && !a.relay.Holds(at)
}

// quarantine notes that the standby is past the fork: it is not counted, and
// waits for a rewind.
func (a *Agent) quarantine(ctx context.Context, as failover.Assignment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.facts.position()
	a.diverged, a.state = true, failover.ServerDiverged
	a.reason = fmt.Sprintf("it is at %s, and timeline %s began at %s", at, as.Timeline, as.SwitchLSN)
	a.log.WarnContext(ctx, "the standby is past the fork, and has to be rewound", "at", at, "timeline", as.Timeline, "fork", as.SwitchLSN)
	a.tellLocked()
}
