package agent

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
)

func TestALeaseIsProlongedByNewerRequestsOnly(t *testing.T) {
	type grant struct {
		sent, d time.Duration
		epoch   failover.Epoch
		back    time.Duration // instead: given back then
	}
	const s = time.Second
	for name, tt := range map[string]struct {
		grants []grant
		epoch  failover.Epoch
		at     time.Duration
		want   time.Duration
	}{
		"nobody's":                        {nil, 1, 10 * s, 0},
		"from when it was asked for":      {[]grant{{10 * s, 2 * s, 1, 0}}, 1, 11 * s, s},
		"at its end":                      {[]grant{{10 * s, 2 * s, 1, 0}}, 1, 12 * s, 0},
		"prolonged":                       {[]grant{{10 * s, 2 * s, 1, 0}, {11 * s, 2 * s, 1, 0}}, 1, 12 * s, s},
		"an older answer comes late":      {[]grant{{11 * s, 2 * s, 1, 0}, {10 * s, 60 * s, 1, 0}}, 1, 12 * s, s},
		"the same answer twice":           {[]grant{{10 * s, 2 * s, 1, 0}, {10 * s, 60 * s, 1, 0}}, 1, 12 * s, 0},
		"a shorter one by a newer answer": {[]grant{{10 * s, 60 * s, 1, 0}, {11 * s, 2 * s, 1, 0}}, 1, 12 * s, s},
		"unasked":                         {[]grant{{0, 60 * s, 1, 0}}, 1, 12 * s, 0},
		"of another epoch":                {[]grant{{10 * s, 60 * s, 1, 0}}, 2, 12 * s, 0},
		"of an older epoch":               {[]grant{{10 * s, 2 * s, 2, 0}, {11 * s, 60 * s, 1, 0}}, 1, 12 * s, 0},
		"the newer epoch's stays":         {[]grant{{10 * s, 3 * s, 2, 0}, {11 * s, 60 * s, 1, 0}}, 2, 12 * s, s},
		"given back":                      {[]grant{{10 * s, 60 * s, 1, 0}, {back: 11 * s}}, 1, 12 * s, 0},
		"asked for before it was given back": {
			[]grant{{10 * s, 2 * s, 1, 0}, {back: 11 * s}, {10500 * time.Millisecond, 60 * s, 1, 0}}, 1, 12 * s, 0,
		},
		"asked for again":             {[]grant{{10 * s, 2 * s, 1, 0}, {back: 11 * s}, {11500 * time.Millisecond, 2 * s, 1, 0}}, 1, 12 * s, 1500 * time.Millisecond},
		"the machine slept for a day": {[]grant{{10 * s, 2 * s, 1, 0}}, 1, 24 * time.Hour, 0},
		"of nothing":                  {[]grant{{10 * s, 0, 1, 0}}, 1, 10 * s, 0},
		"of no epoch":                 {[]grant{{10 * s, 2 * s, 0, 0}}, 0, 11 * s, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var l Lease
			for _, g := range tt.grants {
				if g.back != 0 {
					l.GiveBack(g.back)
					continue
				}
				l.Grant(g.sent, g.d, g.epoch)
			}
			if got := l.Left(tt.at, tt.epoch); got != tt.want {
				t.Errorf("Left(%v, %d) = %v, want %v", tt.at, tt.epoch, got, tt.want)
			}
			if got := l.Valid(tt.at, tt.epoch); got != (tt.want > 0) {
				t.Errorf("Valid(%v, %d) = %v, want %v", tt.at, tt.epoch, got, tt.want > 0)
			}
		})
	}
}

func TestTheClockOfLeasesGoesOn(t *testing.T) {
	before := Boottime()
	if before <= 0 {
		t.Fatalf("Boottime() = %v, want more than nothing", before)
	}
	await(t, "the clock goes on", func() bool { return Boottime() > before })
}
