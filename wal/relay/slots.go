package relay

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/heliosdb/helios/internal/beat"
	"github.com/heliosdb/helios/wal"
)

// slots are the physical replication slots that subscribers have made. A slot
// here is a name and the position from which on its owner still needs WAL: it
// holds WAL at the source if the relay has a slot there, and in the spool. It is
// safe for concurrent use.
type slots struct {
	saving sync.Mutex                     // taken before mu; held while they are saved, so that the newest state is the last
	save   func(map[string]wal.LSN) error // guarded by saving; keeps them over a restart, nil if there is nowhere to
	saved  map[string]wal.LSN             // guarded by saving; what save was given last

	mu sync.Mutex
	of map[string]*slot // guarded by mu
}

type slot struct {
	restart   wal.LSN // 0 before its first use
	temporary bool
	user      uint32 // the session that streams with it; 0 if none
}

func newSlots() *slots { return &slots{of: make(map[string]*slot)} }

// load takes in what was saved.
func (s *slots) load(saved map[string]wal.LSN, save func(map[string]wal.LSN) error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save, s.saved = save, saved
	for name, restart := range saved {
		s.of[name] = &slot{restart: restart}
	}
}

// create makes a slot for the session, and reports whether it could: not if
// there is one of that name.
func (s *slots) create(name string, restart wal.LSN, temporary bool, session uint32) (bool, error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	made := &slot{restart: restart, temporary: temporary}
	if temporary {
		made.user = session
	}
	s.mu.Lock()
	exists := s.of[name] != nil
	if !exists {
		s.of[name] = made
	}
	s.mu.Unlock()
	if exists {
		return false, nil
	}
	if err := s.keepSaving(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.of, name)
		return false, err
	}
	return true, nil
}

// take gives the slot to the session, and returns the session that has it
// already; 0 if it could. A slot that is not there is made: without a disk it is
// lost with the relay, and a standby whose primary_slot_name speaks of it would
// not come back by itself.
func (s *slots) take(name string, session uint32) (owner uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.of[name]
	if x == nil {
		x = &slot{}
		s.of[name] = x
	}
	if x.user != 0 && x.user != session {
		return x.user
	}
	x.user = session
	return 0
}

// leave gives back what the session had; what was temporary goes with it.
func (s *slots) leave(session uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, x := range s.of {
		if x.user != session {
			continue
		}
		if x.user = 0; x.temporary {
			delete(s.of, name)
		}
	}
}

// confirm moves the slot: its owner has flushed up to at.
func (s *slots) confirm(name string, at wal.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.of[name]; x != nil && at != 0 {
		x.restart = at
	}
}

// drop removes a slot: found reports whether there was one, and owner the
// session that uses it, in which case it stays.
func (s *slots) drop(name string, session uint32) (found bool, owner uint32, err error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	x := s.of[name]
	if found = x != nil; found && x.user != session {
		owner = x.user
	}
	if owner == 0 {
		delete(s.of, name)
	}
	s.mu.Unlock()
	if !found || owner != 0 {
		return found, owner, nil
	}
	return true, 0, s.keepSaving()
}

// read returns a slot's position, and false if there is none of that name.
func (s *slots) read(name string) (wal.LSN, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.of[name]
	if x == nil {
		return 0, false
	}
	return x.restart, true
}

// oldest returns the first position that some slot holds; 0 if none does.
func (s *slots) oldest() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := wal.LSN(0)
	for _, x := range s.of {
		if x.restart != 0 && (oldest == 0 || x.restart < oldest) {
			oldest = x.restart
		}
	}
	return oldest
}

// list returns every slot's position.
func (s *slots) list() map[string]wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listLocked(true)
}

func (s *slots) listLocked(temporary bool) map[string]wal.LSN {
	of := make(map[string]wal.LSN, len(s.of))
	for name, x := range s.of {
		if temporary || !x.temporary {
			of[name] = x.restart
		}
	}
	return of
}

// keep saves the slots, if there is somewhere to and something new.
func (s *slots) keep() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	return s.keepSaving()
}

// keepSaving is keep for who holds saving. Who streams is not held up by the disk.
func (s *slots) keepSaving() error {
	s.mu.Lock()
	now := s.listLocked(false)
	s.mu.Unlock()
	if s.save == nil || maps.Equal(now, s.saved) {
		return nil
	}
	err := s.save(now)
	if err == nil {
		s.saved = now
	}
	return err
}

// slotsEvery is how often the slots are saved while they move. After a crash they
// stand where they were saved last, and hold more than they have to.
const slotsEvery = 2 * time.Second

// saveSlots saves the slots now and then, until ctx ends.
func (r *Relay) saveSlots(ctx context.Context) {
	tick := time.NewTimer(beat.Next(slotsEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(beat.Next(slotsEvery))
		}
		if err := r.slots.keep(); err != nil {
			r.log.ErrorContext(ctx, "the slots cannot be saved", "dir", r.cfg.SpoolDir, "error", err)
		}
	}
}
