package integration_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/netns"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A visitor reads from one server, past the driver, from a host that may be cut off
// together with it.
type visitor struct {
	t   *testing.T
	cfg *pgx.ConnConfig
}

func (d *divided) visitor(host string, of *companions.Node) *visitor {
	d.t.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", pgctl.Superuser, of.Postgres))
	pgtest.OK(d.t, err)
	cfg.DialFunc = d.net.Dial(host)
	return &visitor{d.t, cfg}
}

// reads returns since when the server has run that answers, on a connection of its own.
func (v *visitor) reads() (began time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(v.t.Context(), 10*time.Second, errors.New("no answer within 10s"))
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, v.cfg)
	if err != nil {
		return began, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT pg_postmaster_start_time() FROM (SELECT count(*) FROM ledger) l").Scan(&began)
	return began, err
}

// Who is on the machine of a primary that is cut off reads from it what was true
// before. The others go on with another primary, so that becomes old, and readers are
// turned away soon. Afterwards the server is a standby.
func TestReadersOfAPrimaryThatIsCutOffAreTurnedAway(t *testing.T) {
	d := startDivided(t)
	v := d.visitor(d.primary.Name, d.primary)
	_, err := v.reads()
	pgtest.OK(t, err)
	d.strike(func(n *netns.Network) error { return n.Isolate(d.primary.Name) })
	d.awaitSuccessor()
	await(t, "readers to be turned away", func() bool { _, err := v.reads(); return err != nil })
	t.Logf("FIGURES readers are turned away %v after the cut", time.Since(d.cut).Round(time.Millisecond))
	d.heal()
	d.healed("primary and its readers cut from everybody, async")
	_, err = v.reads()
	pgtest.OK(t, err)
	d.audit()
}

// Two of three companions are down, and where they ran nobody listens: nobody can
// have been elected. The primary can acknowledge nothing, but goes on for readers, and
// is the same one when the companions are back.
func TestAPrimaryThatLostItsQuorumIsTheSameAfterwards(t *testing.T) {
	d := startDivided(t)
	v := d.visitor(clients, d.primary)
	began, err := v.reads()
	pgtest.OK(t, err)
	d.strike(func(*netns.Network) error { return errors.Join(d.leader.KillCompanion(), d.standby.KillCompanion()) })
	await(t, "commits to wait for long", func() bool {
		_, last := d.k.ledger.Reign(d.reign)
		return time.Since(last) > d.lease()+6*time.Second
	})
	if now, err := v.reads(); err != nil || !now.Equal(began) {
		t.Errorf("without a quorum the server of %v answers %v, %v", began, now, err)
	}
	pgtest.OK(t, errors.Join(d.leader.Start(), d.standby.Start()))
	d.healed("two companions of three killed, async")
	d.stays()
	if now, err := v.reads(); err != nil || !now.Equal(began) {
		t.Errorf("with a quorum again the server of %v answers %v, %v", began, now, err)
	}
	d.audit()
}

// Nobody hears anybody. The primary cannot know that the others do not hear each other
// either, so it is stopped; and when they do again it is the primary as before.
func TestAPrimaryThatWasStoppedServesAgainIfNobodyWasElected(t *testing.T) {
	d := startDivided(t)
	v := d.visitor(clients, d.primary)
	began, err := v.reads()
	pgtest.OK(t, err)
	d.strike(func(n *netns.Network) error {
		return errors.Join(n.Cut(d.primary.Name, d.leader.Name, d.standby.Name), n.Cut(d.leader.Name, d.standby.Name))
	})
	await(t, "the primary to be stopped", func() bool { _, err := v.reads(); return err != nil })
	t.Logf("FIGURES the primary is stopped %v after the cut", time.Since(d.cut).Round(time.Millisecond))
	d.heal()
	d.healed("all cut from each other, async")
	d.stays()
	if now, err := v.reads(); err != nil || !now.After(began) {
		t.Errorf("the server of %v answers as that of %v, %v; want it started again", began, now, err)
	}
	d.audit()
}
