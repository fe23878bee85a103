package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience bounds what a test waits for when nothing else does.
const patience = time.Minute

// New starts a cluster for a test and closes it at the test's end. If the test
// fails, the ends of all servers' logs are shown. Without PostgreSQL the test is
// skipped, or fails where CI=true says that there has to be one.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c, err := Start(Context(t), o)
	if errors.Is(err, ErrUnavailable) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.logTails(t)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close of the cluster: %v", err)
		}
	})
	return c
}

// logTails shows how every server's log ends.
func (c *Cluster) logTails(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		text, err := n.server.Log()
		if err != nil {
			t.Logf("log of %s: %v", n.Name, err)
		}
		t.Logf("log of %s ends with:\n%s", n.Name, text)
	}
}

// OK ends the test if err is not nil.
func OK(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Context returns the test's context, which also ends after a minute: no wait
// for a server lasts longer.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not done within %v", patience))
	t.Cleanup(cancel)
	return ctx
}

// Conn opens a superuser's connection to the node, past any proxy, and closes it
// at the test's end.
func (n *Node) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := n.Connect(Context(t))
	OK(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // the node may be dead
	return conn
}
