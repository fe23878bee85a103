package failover

import (
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestRejoinTakesTheQuickestWayThatIsSafe(t *testing.T) {
	history := wal.History{{Timeline: 2, LSN: 200}, {Timeline: 3, LSN: 300}}
	at := func(t wal.Timeline, l wal.LSN) LocalData {
		return LocalData{SystemID: 7, Position: wal.Position{Timeline: t, LSN: l}, CanRewind: true}
	}
	with := func(d LocalData, change func(*LocalData)) LocalData {
		change(&d)
		return d
	}
	for name, tt := range map[string]struct {
		local  LocalData
		target wal.Timeline
		want   RejoinStep
	}{
		"an empty directory":                       {LocalData{Empty: true}, 3, RejoinClone},
		"crashed before the fork":                  {at(2, 299), 3, RejoinStart},
		"crashed exactly at the fork":              {at(2, 300), 3, RejoinStart},
		"one byte past the fork":                   {at(2, 301), 3, RejoinRewind},
		"shut down cleanly at the fork":            {with(at(2, 300), func(d *LocalData) { d.CleanShutdown = true }), 3, RejoinStart},
		"shut down cleanly past the fork":          {with(at(2, 301), func(d *LocalData) { d.CleanShutdown = true }), 3, RejoinRewind},
		"past the fork without hints":              {with(at(2, 301), func(d *LocalData) { d.CanRewind = false }), 3, RejoinClone},
		"two timelines back, before both forks":    {at(1, 200), 3, RejoinStart},
		"two timelines back, past the first fork":  {at(1, 201), 3, RejoinRewind},
		"on the cluster's timeline":                {at(3, 5000), 3, RejoinStart},
		"a timeline whose successor is not known":  {at(3, 300), 5, RejoinRewind},
		"data of another cluster":                  {with(at(2, 100), func(d *LocalData) { d.SystemID = 8 }), 3, RejoinQuarantine},
		"a future that the cluster does not know":  {at(4, 400), 3, RejoinQuarantine},
		"a promotion that never was ready":         {with(at(4, 400), func(d *LocalData) { d.Foreign = true }), 3, RejoinRewind},
		"a number that was given twice":            {with(at(3, 310), func(d *LocalData) { d.Foreign = true }), 3, RejoinClone},
		"a future of times that nobody remembers":  {with(at(4, 400), func(d *LocalData) { d.Foreign, d.Forgotten = true, true }), 3, RejoinQuarantine},
		"a past of times that nobody remembers":    {with(at(2, 299), func(d *LocalData) { d.Foreign, d.Forgotten = true, true }), 3, RejoinClone},
		"the same number with another beginning":   {with(at(3, 310), func(d *LocalData) { d.History = wal.History{{Timeline: 3, LSN: 290}} }), 3, RejoinClone},
		"an older number with another beginning":   {with(at(2, 250), func(d *LocalData) { d.History = wal.History{{Timeline: 2, LSN: 190}} }), 3, RejoinRewind},
		"the same past":                            {with(at(3, 310), func(d *LocalData) { d.History = history }), 3, RejoinStart},
		"nobody knows the cluster's timeline":      {at(2, 100), 0, RejoinQuarantine},
		"nobody knows where the local WAL ends":    {at(0, 0), 3, RejoinClone},
		"first timeline, nothing has ever forked":  {at(1, 100), 1, RejoinStart},
		"no history, and a promotion was missed":   {at(1, 100), 4, RejoinRewind},
		"no history, and no hints, and one missed": {with(at(3, 400), func(d *LocalData) { d.CanRewind = false }), 4, RejoinClone},
	} {
		t.Run(name, func(t *testing.T) {
			h := history
			got := Rejoin(tt.local, h, tt.target, 7)
			if got.Step != tt.want || got.Reason == "" {
				t.Errorf("Rejoin(%+v, %v, %v) = %+v, want %s with a reason", tt.local, h, tt.target, got, tt.want)
			}
		})
	}
}
