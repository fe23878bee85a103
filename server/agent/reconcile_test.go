package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
)

// What fails again and again is tried once a second, and said once; what is another
// thing is tried at once.
func TestAStepThatFailsIsTriedAgainAfterAPause(t *testing.T) {
	var last failure
	rejoin := attempt{stepRejoin, 2, failover.PhaseReady, "n1"}
	refused := errors.New("refused\nFATAL: at 12:00")
	var now time.Duration
	const ms = time.Millisecond
	for i, want := range []time.Duration{50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, time.Second, time.Second} {
		if news := last.note(rejoin, refused, now, now); news != (i == 0) {
			t.Errorf("try %d: news is %v", i+1, news)
		}
		if got := last.until - now; got != want {
			t.Errorf("try %d: a pause of %v, want %v", i+1, got, want)
		}
		if last.note(rejoin, errPause, now, now) || last.until != now+want {
			t.Errorf("try %d: what was left out counts", i+1)
		}
		now = last.until
	}
	if !last.note(rejoin, errors.New("another reason"), now, now) {
		t.Error("another reason is not told")
	}
	another := attempt{stepRejoin, 3, failover.PhaseReady, "n1"}
	last.note(another, refused, now, now)
	if got := last.until - now; got != firstPause {
		t.Errorf("another epoch's first pause is %v, want %v", got, firstPause)
	}
	last.note(another, refused, now, now+10*time.Second)
	if got := last.until - now; got != 20*time.Second {
		t.Errorf("after a try of 10s it is tried again %v after its begin, want 20s", got)
	}
	last.note(another, refused, now, now+10*time.Minute)
	if got := last.until - now; got != 11*time.Minute {
		t.Errorf("after a try of 10m it is tried again %v after its begin, want 11m", got)
	}
	if last.note(another, nil, now, now); last != (failure{}) {
		t.Errorf("after a success: %+v, want none", last)
	}
}
