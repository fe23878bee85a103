package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
)

// companionDeath names the environment variable that has a companion die.
const companionDeath = "HELIOS_TEST_COMPANION_DIES"

// A deathWish has the companion that leads die, as kill -9 does, when it is about to
// do something. Only the first one that comes to that point dies.
type deathWish struct {
	At   string // what the leader's log calls it, such as "seal"
	Note string // the file in which it leaves its name
}

// mortal is what companions write their log to, if one of them is to die by what it
// has to say.
type mortal struct {
	slog.Handler
	wish deathWish
}

// withDeathWish returns h, or if the environment wants it one that ends the process.
func withDeathWish(h slog.Handler) slog.Handler {
	text := os.Getenv(companionDeath)
	if text == "" {
		return h
	}
	m := &mortal{Handler: h}
	if err := json.Unmarshal([]byte(text), &m.wish); err != nil {
		panic(err)
	}
	return m
}

// Enabled implements slog.Handler: what is of no interest in the log may be where the
// companion dies.
func (m *mortal) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (m *mortal) Handle(ctx context.Context, r slog.Record) error {
	if m.Handler.Enabled(ctx, r.Level) {
		if err := m.Handler.Handle(ctx, r); err != nil {
			return err
		}
	}
	if r.Message != "the leader acts" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "does" && a.Value.String() == m.wish.At {
			m.die()
		}
		return true
	})
	return nil
}

// WithAttrs implements slog.Handler.
func (m *mortal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &mortal{m.Handler.WithAttrs(attrs), m.wish}
}

// die ends the process, unless another one was first. The wish is granted in the
// story only: while there is no file to say so, the cluster is being made.
func (m *mortal) die() {
	if os.Remove(m.wish.Note) != nil {
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// The leader of the log dies in the middle of a failover, and the next one goes on
// where it was.
func TestTheLeaderDiesInAFailover(t *testing.T) {
	moments := []string{"fence", "seal", "elect", "promote", "ready"}
	if testing.Short() {
		moments = moments[3:4]
	}
	for _, at := range moments {
		t.Run("before "+at, func(t *testing.T) {
			wish := deathWish{At: at, Note: filepath.Join(t.TempDir(), "the leader may die")}
			text, err := json.Marshal(wish)
			if err != nil {
				t.Fatal(err)
			}
			c := startCompanions(t, companions.Options{Nodes: 3, Place: func(n *companions.Node) error {
				n.Wrap(func(cmd *osexec.Cmd) { cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s", companionDeath, text)) })
				return nil
			}})
			k := employ(t, c, clerks)
			old := primaryOf(t, c)
			if err := os.WriteFile(wish.Note, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			fault := time.Now()
			if err := old.KillPostgres(); err != nil {
				t.Fatal(err)
			}
			await(t, "the leader to die", func() bool { return !allRun(c) })
			k.await(50)
			gap := k.ledger.Gap(fault)
			for _, n := range c.Nodes {
				if !n.Running() {
					t.Logf("FIGURES write gap %v; %s led and died before it did %q", gap, n.Name, at)
					if err := n.Start(); err != nil {
						t.Fatal(err)
					}
				}
			}
			k.await(20)
			k.audit(0)
		})
	}
}

// allRun reports whether the companions of all nodes run.
func allRun(c *companions.Cluster) bool {
	for _, n := range c.Nodes {
		if !n.Running() {
			return false
		}
	}
	return true
}
