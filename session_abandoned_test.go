package helios

import (
	"errors"
	"testing"

	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// A session has seen a timeline that the cluster has given up: what stands before its
// beginning is kept, and what does not is reported once.
func TestASessionLeavesAnAbandonedTimeline(t *testing.T) {
	view := &topology.View{
		SystemID: 7, Timeline: 3, History: wal.History{{Timeline: 3, LSN: 50}},
		Abandoned: wal.History{{Timeline: 4, LSN: 100}, {Timeline: 5, LSN: 120}},
	}
	for name, tt := range map[string]struct {
		at   Token
		want wal.LSN
		lost bool
	}{
		"beyond":              {Token{7, 4, 150}, 100, true},
		"on the next one too": {Token{7, 5, 110}, 100, true},
		"before its end":      {Token{7, 4, 100}, 100, false},
		"at its parent":       {Token{7, 4, 90}, 90, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewSession()
			s.Advance(tt.at)
			if s.ahead(view) {
				t.Error("the session waits for a timeline that nobody goes on with")
			}
			at, verdict, loss := s.wants(view)
			if lost := verdict == wal.Lost; at != tt.want || lost != tt.lost {
				t.Errorf("wants %s, lost %v; want %s, %v", at, lost, tt.want, tt.lost)
			}
			if tt.lost && !errors.Is(loss.error(), ErrWriteLost) {
				t.Errorf("the loss is %v", loss.error())
			}
			if got := s.Token(); got != (Token{7, 3, tt.want}) {
				t.Errorf("afterwards its token is %s", got)
			}
			if at, verdict, _ := s.wants(view); at != tt.want || verdict != wal.Kept {
				t.Errorf("asked again it wants %s, %v", at, verdict)
			}
		})
	}
	s := NewSession()
	s.Advance(Token{7, 6, 150})
	if !s.ahead(view) {
		t.Error("a timeline that nobody has shown yet is waited for")
	}
}
