package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// twoRelays is a primary with a standby behind a relay, and one behind two, and
// the relays are processes.
type twoRelays struct {
	c           *pgtest.Cluster
	near, far   *relayProcess
	primary     *pgtest.Node
	first, last *pgtest.Node
	load        *relayLoad
}

func startTwoRelays(t testing.TB) *twoRelays {
	t.Helper()
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	s := &twoRelays{c: c, primary: c.Primary(), first: c.Nodes[1], last: c.Nodes[2]}
	s.near = startRelayProcess(t, "near", s.primary.Server().Conninfo(""))
	s.far = startRelayProcess(t, "far", s.near.conninfo(""))
	streamFrom(storyContext(t), t, s.first, s.near.conninfo("n2"))
	streamFrom(storyContext(t), t, s.last, s.far.conninfo("n3"))
	s.load = startPgbench(t, c)
	s.flow(t)
	return s
}

// flow waits until both standbys have what the primary has now.
func (s *twoRelays) flow(t testing.TB) {
	t.Helper()
	awaitFlow(t, s.primary, s.first, s.last)
}

// disturb does something under load, after which everything has to flow again.
func (s *twoRelays) disturb(t testing.TB, what string, how func()) {
	t.Helper()
	began := time.Now()
	how()
	done := time.Since(began)
	s.flow(t)
	t.Logf("FIGURES %s: took %v, and WAL flows to both standbys %v later", what, done, time.Since(began)-done)
}

// same ends the load and compares.
func (s *twoRelays) same(t testing.TB) {
	t.Helper()
	s.load.stop()
	ctx := storyContext(t)
	awaitSame(ctx, t, s.primary, s.first, s.last)
	awaitRest(ctx, t, s.primary, s.first, s.last)
}

func TestStandbysSurviveTheRestartAndTheDeathOfEachRelay(t *testing.T) {
	s := startTwoRelays(t)
	for _, r := range []*relayProcess{s.near, s.far} {
		s.disturb(t, "restart of "+r.settings.Name, func() { r.stop(); r.start() })
		s.disturb(t, "kill -9 of "+r.settings.Name, func() { r.kill(); r.start() })
	}
	s.disturb(t, "kill -9 of both", func() { s.near.kill(); s.far.kill(); s.far.start(); s.near.start() })
	s.same(t)
}

func TestStandbysBehindRelaysSurviveTheirOwnRestartAndCrash(t *testing.T) {
	s := startTwoRelays(t)
	for _, n := range []*pgtest.Node{s.first, s.last} {
		s.disturb(t, "restart of "+n.Name, func() { pgtest.OK(t, s.c.Restart(storyContext(t), n)) })
		s.disturb(t, "crash of "+n.Name, func() {
			pgtest.OK(t, s.c.Kill(n))
			pgtest.OK(t, s.c.Start(storyContext(t), n))
		})
	}
	s.same(t)
}

func TestStandbysBehindRelaysSurviveRestartAndCrashOfThePrimary(t *testing.T) {
	s := startTwoRelays(t)
	for range 2 {
		s.disturb(t, "restart of the primary", func() { pgtest.OK(t, s.c.Restart(storyContext(t), s.primary)) })
		s.disturb(t, "crash of the primary", func() {
			pgtest.OK(t, s.c.Kill(s.primary))
			pgtest.OK(t, s.c.Start(storyContext(t), s.primary))
		})
	}
	s.same(t)
}
