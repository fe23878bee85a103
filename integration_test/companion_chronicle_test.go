package integration_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/client"
)

// A chronicle holds whom all companions have ever called the primary.
type chronicle struct {
	running sync.WaitGroup

	mu     sync.Mutex
	reigns map[uint64]map[string]bool // guarded by mu; by epoch
}

// listen takes down what a companion tells, until ctx ends.
func (h *chronicle) listen(ctx context.Context, t testing.TB, n *companions.Node) {
	listener, err := client.New([]string{n.Companion}, client.Options{Dial: n.Dial, TLS: n.TLS()})
	pgtest.OK(t, err)
	h.running.Go(func() {
		defer listener.Close()
		for b := range listener.Watch(ctx) {
			if b != nil && b.Primary != "" {
				h.note(b.Epoch, b.Primary)
			}
		}
	})
}

func (h *chronicle) note(epoch uint64, primary string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reigns[epoch] == nil {
		h.reigns[epoch] = map[string]bool{}
	}
	h.reigns[epoch][primary] = true
}

// compare holds what the companions have told against what their log says: in each
// epoch there was one primary.
func (h *chronicle) compare(t testing.TB, c *companions.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		asked := operator(t, n)
		history, err := asked.History(pgtest.Context(t), 100)
		pgtest.OK(t, err)
		last := uint64(0)
		for _, reign := range history.Transitions {
			if uint64(reign.Epoch) <= last {
				t.Errorf("%s: epoch %d comes after %d", n.Name, reign.Epoch, last)
			}
			last = uint64(reign.Epoch)
			if reign.Timeline != 0 {
				h.note(last, reign.To)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for epoch, primaries := range h.reigns {
		if len(primaries) != 1 {
			t.Errorf("epoch %d has had the primaries %v", epoch, primaries)
		}
	}
}

// operator returns a client of some companions.
func operator(t testing.TB, nodes ...*companions.Node) *client.Client {
	t.Helper()
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.Companion)
	}
	asked, err := client.New(addrs, client.Options{Dial: nodes[0].Dial, TLS: nodes[0].TLS()})
	pgtest.OK(t, err)
	t.Cleanup(asked.Close)
	return asked
}

// epochOf returns the newest epoch that the cluster's leader tells of.
func epochOf(t testing.TB, c *companions.Cluster) string {
	t.Helper()
	b := awaitBulletin(t, c, "there is a primary", companions.NewPrimary(""))
	return fmt.Sprintf("%s in epoch %d", b.Primary, b.Epoch)
}
