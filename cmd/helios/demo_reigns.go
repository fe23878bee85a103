package main

import (
	"context"
	"sync"
	"time"
)

// reigns tell from the timelines of acknowledged writes who was primary when. It is
// safe for concurrent use.
type reigns struct {
	mu      sync.Mutex
	all     []reign       // guarded by mu; each on a newer timeline than the one before
	dual    uint64        // guarded by mu; writes that an old primary acknowledged beside a new one
	changed chan struct{} // guarded by mu; closed when there is one more
}

// A reign is the time of one primary.
type reign struct {
	timeline int64
	since    time.Time // when a write was first acknowledged
}

func newReigns() *reigns { return &reigns{changed: make(chan struct{})} }

// acknowledged notes an acknowledgement that came just now, of a write that began
// then.
func (r *reigns) acknowledged(timeline int64, began time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if timeline > r.newestLocked().timeline {
		r.all = append(r.all, reign{timeline, time.Now()})
		close(r.changed)
		r.changed = make(chan struct{})
		return
	}
	for _, newer := range r.all {
		if newer.timeline > timeline && began.After(newer.since) {
			r.dual++
			return
		}
	}
}

func (r *reigns) newestLocked() reign {
	if len(r.all) == 0 {
		return reign{}
	}
	return r.all[len(r.all)-1]
}

// newest returns the newest reign; zero if there was none yet.
func (r *reigns) newest() reign {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newestLocked()
}

// duals returns how many writes an old primary has acknowledged that began after
// one of a successor was acknowledged.
func (r *reigns) duals() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dual
}

// after waits for a reign on a newer timeline than that.
func (r *reigns) after(ctx context.Context, timeline int64) (reign, error) {
	for {
		r.mu.Lock()
		newest, changed := r.newestLocked(), r.changed
		r.mu.Unlock()
		if newest.timeline > timeline {
			return newest, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return reign{}, context.Cause(ctx)
		}
	}
}
