package server

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/agent"
	"github.com/heliosdb/helios/server/api"
)

// known is what a companion knows of the primary, as the log has it.
type known struct {
	Epoch   failover.Epoch `json:"epoch"`
	Primary string         `json:"primary"` // "" if nobody was elected in Epoch yet
}

func knownOf(s *failover.State) known {
	if s.Phase != failover.PhaseElected && s.Phase != failover.PhaseReady {
		return known{Epoch: s.Epoch}
	}
	return known{Epoch: s.Epoch, Primary: s.Primary}
}

// askAround asks all other companions that vote what they know, at once. It needs a
// connection to each that is made for it: an open one may have been lost with the
// network, and not have noticed that this is back.
func askAround(ctx context.Context, s *failover.State, self string, callers *callers) agent.Around {
	var seen agent.Around
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range s.Members {
		if m.NonVoter {
			continue
		}
		seen.Voters++
		if m.Name == self {
			continue
		}
		asking.Go(func() {
			var k known
			err := callers.call(ctx, m.Companion, pathKnown, empty{}, &k)
			mu.Lock()
			defer mu.Unlock()
			if isSilent(err) {
				seen.Silent++
			}
			if k.Primary != "" && k.Epoch > seen.Epoch {
				seen.Epoch, seen.Primary = k.Epoch, k.Primary
			}
		})
	}
	asking.Wait()
	return seen
}

// isSilent reports whether a call tells nothing of whether a companion votes. One
// that refuses the call is heard, and where nobody listens none runs.
func isSilent(err error) bool {
	_, answered := errors.AsType[*api.Error](err)
	return err != nil && !answered && !errors.Is(err, syscall.ECONNREFUSED)
}
