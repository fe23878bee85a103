package histcheck

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestJudgeFindsWhatMustNeverBe(t *testing.T) {
	for name, tt := range map[string]struct {
		outcomes []Outcome // of ids 1, 2, …
		final    []int64
		want     Verdict
		bad      bool
	}{
		"all is well": {
			[]Outcome{Acknowledged, Unknown, Unknown, Refused, Pending},
			[]int64{1, 2},
			Verdict{Attempted: 5, Acknowledged: 1, Refused: 1, Unknown: 3, Final: 2, Recovered: 1},
			false,
		},
		"lost":     {[]Outcome{Acknowledged, Acknowledged}, []int64{1}, Verdict{Attempted: 2, Acknowledged: 2, Final: 1, Lost: []int64{2}}, true},
		"doubled":  {[]Outcome{Acknowledged}, []int64{1, 1}, Verdict{Attempted: 1, Acknowledged: 1, Final: 2, Doubled: []int64{1}}, true},
		"invented": {[]Outcome{Acknowledged}, []int64{1, 7}, Verdict{Attempted: 1, Acknowledged: 1, Final: 2, Invented: []int64{7}}, true},
		"denied":   {[]Outcome{Refused}, []int64{1}, Verdict{Attempted: 1, Refused: 1, Final: 1, Denied: []int64{1}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLedger()
			for _, o := range tt.outcomes {
				id := l.Begin()
				if o != Pending {
					l.End(id, o, 1)
				}
			}
			got := l.Judge(tt.final)
			if got.String() != tt.want.String() || !slices.Equal(got.Lost, tt.want.Lost) {
				t.Errorf("Judge: %v\nwant   %v", got, tt.want)
			}
			if err := got.Err(0); (err != nil) != tt.bad {
				t.Errorf("Err(0) = %v, want an error: %v", err, tt.bad)
			}
		})
	}
}

func TestAnOldReignThatAcknowledgesAfterANewOneIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		early := l.Begin()
		time.Sleep(time.Millisecond)
		l.End(l.Begin(), Acknowledged, 2)
		time.Sleep(time.Millisecond)
		late := l.Begin()
		l.End(late, Acknowledged, 1)
		l.End(early, Acknowledged, 1) // may have been executed before the new one's
		if got := l.Judge(nil).Dual; !slices.Equal(got, []int64{late}) {
			t.Errorf("Dual = %v, want [%d]", got, late)
		}
	})
}

func TestTheGapIsTheLongestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		ack := func(after time.Duration) {
			time.Sleep(after)
			l.End(l.Begin(), Acknowledged, 1)
		}
		ack(0)
		ack(9 * time.Second)
		fault := time.Now()
		ack(time.Second)
		ack(3 * time.Second)
		ack(time.Second)
		if got := l.Gap(fault); got != 3*time.Second {
			t.Errorf("Gap = %v, want 3s", got)
		}
	})
}

func TestAReignLastsFromItsFirstAcknowledgementToItsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger()
		began := time.Now()
		for second, reign := range []uint64{1, 1, 2, 1, 3} {
			if second > 0 {
				time.Sleep(time.Second)
			}
			outcome := Acknowledged
			if reign == 3 {
				outcome = Unknown
			}
			l.End(l.Begin(), outcome, reign)
		}
		for reign, want := range map[uint64][2]time.Duration{1: {0, 3 * time.Second}, 2: {2 * time.Second, 2 * time.Second}} {
			first, last := l.Reign(reign)
			if got := [2]time.Duration{first.Sub(began), last.Sub(began)}; got != want {
				t.Errorf("Reign(%d) lasts from %v to %v, want %v", reign, got[0], got[1], want)
			}
		}
		if first, last := l.Reign(3); !first.IsZero() || !last.IsZero() {
			t.Errorf("Reign(3) lasts from %v to %v, though it acknowledged nothing", first, last)
		}
		if at, reign := l.Answer(3); at.Sub(began) != 2*time.Second || reign != 2 {
			t.Errorf("Answer(3) = %v, %d, want 2s, 2", at.Sub(began), reign)
		}
	})
}

func TestRegistersTellAStaleRead(t *testing.T) {
	for name, tt := range map[string]struct {
		read int64
		ok   bool
	}{"fresh": {2, true}, "stale": {1, false}} {
		synctest.Test(t, func(t *testing.T) {
			r := NewRegisters()
			step := func(op Op, value int64) {
				time.Sleep(time.Millisecond)
				op.Done(value)
				time.Sleep(time.Millisecond)
			}
			step(r.Write(1, 7, 1), 0)
			r.Write(2, 7, 5).Unknown()
			step(r.Write(1, 7, 2), 0)
			step(r.Read(3, 7), tt.read)
			if err := r.Check(time.Minute, ""); (err == nil) != tt.ok {
				t.Errorf("%s: Check = %v, want success: %v", name, err, tt.ok)
			}
		})
	}
}
