package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/agent"
)

// n4 takes connections and says nothing, as a machine that hangs; nobody listens
// where n5 should be.
func TestACompanionAsksAllOthersWhatTheyKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		c.await("n2 knows that", c.ready("n2", "n1"))
		hung := c.net.Listen("n4:7101")
		defer hung.Close()
		state := *c.members["n1"].State()
		for _, m := range []failover.Member{{Name: "n4"}, {Name: "n5"}, {Name: "n6", NonVoter: true}} {
			m.Companion = m.Name + ":7101"
			state.Members = append(state.Members, m)
		}
		callers := newCallers(nil, c.net.DialContext).once()
		ask := func(s *failover.State) agent.Around {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return askAround(ctx, s, "n1", callers)
		}
		want := agent.Around{Voters: 5, Silent: 1, Epoch: 1, Primary: "n1"}
		if got := ask(&state); got != want {
			t.Errorf("askAround = %+v, want %+v", got, want)
		}
		time.Sleep(5 * time.Second)
		c.members["n1"].node.crash()
		c.await("n2 or n3 is primary", func() bool {
			s := c.members["n2"].State()
			return s.Phase == failover.PhaseReady && s.Primary != "n1"
		})
		if got := ask(&state); got.Epoch != 2 || got.Primary != c.members["n2"].State().Primary {
			t.Errorf("after a failover to %s askAround = %+v", c.members["n2"].State().Primary, got)
		}
		if got := ask(&failover.State{}); got != (agent.Around{}) {
			t.Errorf("before anything is known of the cluster askAround = %+v", got)
		}
	})
}
