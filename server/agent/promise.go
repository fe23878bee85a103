package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/durable"
)

// A promise is what an agent must not forget, whatever happens to it.
type promise struct {
	Sealed  failover.Epoch `json:"sealed"`  // WAL, confirmations and leases of older epochs are nobody's any more
	Epoch   failover.Epoch `json:"epoch"`   // the newest that was seen
	Primary string         `json:"primary"` // of Epoch, or of the newest before it that had one
	Reign   failover.Epoch `json:"reign"`   // the newest epoch that this node was the primary of
	Taken   failover.Epoch `json:"taken"`   // the newest epoch in which WAL may have been written or taken; it is here before the first byte is there
	Astray  bool           `json:"astray"`  // the data are of a primary that never was ready, whatever Taken says by now
}

// newest returns the highest epoch that the promise knows of.
func (p promise) newest() failover.Epoch { return max(p.Sealed, p.Epoch) }

// promises keeps a promise on disk. It is safe for concurrent use.
type promises struct {
	path string
	mu   sync.Mutex
	now  promise
}

const promiseFile = "agent.json"

// openPromises reads what was promised before.
func openPromises(dir string) (*promises, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("agent: state directory: %w", err)
	}
	p := &promises{path: filepath.Join(dir, promiseFile)}
	text, err := os.ReadFile(p.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("agent: %w", err)
	}
	if err := json.Unmarshal(text, &p.now); err != nil {
		return nil, fmt.Errorf("agent: %s: %w", p.path, err)
	}
	return p, nil
}

func (p *promises) get() promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// change makes the promise what edit leaves of it. When it returns without
// error that is on disk.
func (p *promises) change(edit func(*promise)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.now
	edit(&next)
	if next == p.now {
		return nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := durable.Replace(p.path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("agent: what is promised was not saved: %w", err)
	}
	p.now = next
	return nil
}
