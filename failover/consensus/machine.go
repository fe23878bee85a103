package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover"
)

// A machine is the state that raft applies the log to. Raft alone writes, one
// entry after the other; anybody reads.
type machine struct {
	newest atomic.Pointer[version]
}

// A version is a state, and replaced is closed when there is a newer one.
type version struct {
	state    *failover.State
	replaced chan struct{}
}

func newMachine() *machine {
	m := &machine{}
	m.newest.Store(&version{state: &failover.State{}, replaced: make(chan struct{})})
	return m
}

// Apply applies an entry and returns nil, or why the state does not allow it.
func (m *machine) Apply(entry *raft.Log) any {
	var c failover.Command
	if err := json.Unmarshal(entry.Data, &c); err != nil {
		return &RefusedError{Err: fmt.Errorf("entry %d of the log: %w", entry.Index, err)}
	}
	next, err := m.newest.Load().state.Apply(c)
	if err != nil {
		return &RefusedError{Err: err}
	}
	m.publish(next)
	return nil
}

func (m *machine) publish(state *failover.State) {
	last := m.newest.Swap(&version{state: state, replaced: make(chan struct{})})
	close(last.replaced)
}

// Snapshot returns the newest state, which nobody changes.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{m.newest.Load().state}, nil
}

// Restore makes the state that of a snapshot.
func (m *machine) Restore(from io.ReadCloser) error {
	state := &failover.State{}
	if err := json.NewDecoder(from).Decode(state); err != nil {
		return fmt.Errorf("snapshot of the state: %w", err)
	}
	m.publish(state)
	return nil
}

// A snapshot is a state that is written as JSON.
type snapshot struct{ state *failover.State }

// Persist writes the state.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s.state); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to give back.
func (snapshot) Release() {}
