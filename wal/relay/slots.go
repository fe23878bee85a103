package relay

import (
	"maps"
	"sync"

	"github.com/heliosdb/helios/wal"
)

// slots are the physical replication slots that subscribers have made. A slot
// here is a name and the position from which on its owner still needs WAL: it
// holds WAL at the source if the relay has a slot there, and in the spool. It is
// safe for concurrent use.
type slots struct {
	mu   sync.Mutex
	of   map[string]*slot
	save func(map[string]wal.LSN) error // keeps them over a restart; nil if there is nowhere to
}

type slot struct {
	restart   wal.LSN // 0 before its first use
	temporary bool
	user      uint32 // the session that streams with it; 0 if none
}

func newSlots() *slots { return &slots{of: make(map[string]*slot)} }

// load takes in what was saved.
func (s *slots) load(saved map[string]wal.LSN, save func(map[string]wal.LSN) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save = save
	for name, restart := range saved {
		s.of[name] = &slot{restart: restart}
	}
}

// create makes a slot for the session, and reports whether it could: not if
// there is one of that name.
func (s *slots) create(name string, restart wal.LSN, temporary bool, session uint32) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[name] != nil {
		return false, nil
	}
	made := &slot{restart: restart, temporary: temporary}
	if temporary {
		made.user = session
	}
	s.of[name] = made
	if err := s.saveLocked(); err != nil {
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
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.of[name]
	switch {
	case x == nil:
		return false, 0, nil
	case x.user != 0 && x.user != session:
		return true, x.user, nil
	}
	delete(s.of, name)
	return true, 0, s.saveLocked()
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

// keep saves the slots, if there is somewhere to.
func (s *slots) keep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saveLocked()
}

func (s *slots) saveLocked() error {
	if s.save == nil {
		return nil
	}
	return s.save(maps.Clone(s.listLocked(false)))
}
