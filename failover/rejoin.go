package failover

import (
	"fmt"

	"github.com/heliosdb/helios/wal"
)

// LocalData is what a stopped data directory says of itself.
type LocalData struct {
	Empty         bool         // there is none, or nothing in it
	SystemID      uint64       // from its control data
	Position      wal.Position // where its WAL ends, or its minimum recovery point if that is further; on its own timeline
	History       wal.History  // where its timelines began, by its own history files
	CleanShutdown bool         // its control data says that it was shut down, not that it was running
	CanRewind     bool         // it has checksums or wal_log_hints, so that pg_rewind works

	// Forgotten says that nobody remembers whether its timeline is of a primary that was ready.
	Forgotten bool

	// Foreign says that its timeline is of a primary that never was ready (see
	// [State.Astray]): the cluster may have given that number to another timeline since.
	Foreign bool
}

// A RejoinStep is what makes a standby of a data directory.
type RejoinStep string

// What may be needed, from the quickest on.
const (
	RejoinStart      RejoinStep = "start"      // as a standby; crash recovery, if it needs one, happens as a standby
	RejoinRewind     RejoinStep = "rewind"     // pg_rewind, after what is past the fork was put aside
	RejoinClone      RejoinStep = "clone"      // pg_basebackup beside it; it goes when the new one is whole
	RejoinQuarantine RejoinStep = "quarantine" // nothing: people have to look
)

// A RejoinPlan is how a data directory comes back, and why that way.
type RejoinPlan struct {
	Step   RejoinStep
	Reason string // for people
}

// Rejoin decides how the data directory that local describes becomes a standby of a
// primary with that system identifier, on the timeline target, whose past is history.
//
// A directory whose WAL ends at or before every fork is simply started: what it lacks is
// streamed, and whether it was shut down or crashed makes no difference (a standby's crash
// recovery goes on where its WAL ends). Past a fork it needs pg_rewind. That works by
// timeline numbers: it takes two timelines of one number for the same (rewind_needed in
// pg_rewind.c), so where numbers cannot be trusted, only a clone helps. What belongs to
// another cluster, or to a future that this cluster knows nothing of, is left alone.
func Rejoin(local LocalData, history wal.History, target wal.Timeline, systemID uint64) RejoinPlan {
	at := local.Position
	switch {
	case local.Empty:
		return RejoinPlan{RejoinClone, "there is no data"}
	case target == 0 || systemID == 0:
		return RejoinPlan{RejoinQuarantine, "the cluster has no primary to compare with"}
	case local.SystemID != systemID:
		return RejoinPlan{RejoinQuarantine, fmt.Sprintf("the data belong to another cluster: system identifier %d, not %d", local.SystemID, systemID)}
	case at.Timeline == 0:
		return RejoinPlan{RejoinClone, "it is not known where the WAL ends"}
	case at.Timeline > target && (!local.Foreign || local.Forgotten):
		return RejoinPlan{RejoinQuarantine, fmt.Sprintf("the data are on timeline %s, and the cluster is only on %s", at.Timeline, target)}
	case at.Timeline > target:
		return rewind(local, fmt.Sprintf("timeline %s never was the cluster's", at.Timeline))
	case local.Forgotten:
		return RejoinPlan{RejoinClone, fmt.Sprintf("it is so far behind that nobody remembers whether timeline %s was the cluster's then", at.Timeline)}
	case local.Foreign:
		return RejoinPlan{RejoinClone, fmt.Sprintf("timeline %s came from a primary that never was ready, and may not be the cluster's", at.Timeline)}
	}
	if plan, ok := otherPast(local, history, target); ok {
		return plan
	}
	switch history.Holds(at, target) {
	case wal.Kept:
		if local.CleanShutdown {
			return RejoinPlan{RejoinStart, fmt.Sprintf("was shut down at %s, in the past of timeline %s", at, target)}
		}
		return RejoinPlan{RejoinStart, fmt.Sprintf("crashed at %s, in the past of timeline %s", at, target)}
	case wal.Lost:
		return rewind(local, fmt.Sprintf("the WAL ends at %s, past the fork to timeline %s", at, target))
	case wal.Undecided:
	}
	return rewind(local, fmt.Sprintf("it is not known where the timelines after %s began", at.Timeline))
}

// otherPast finds a timeline that began elsewhere here than in the cluster.
func otherPast(local LocalData, history wal.History, target wal.Timeline) (RejoinPlan, bool) {
	for _, mine := range local.History {
		theirs, known := history.Begin(mine.Timeline)
		if !known || theirs == mine.LSN {
			continue
		}
		why := fmt.Sprintf("timeline %s began at %s here, and at %s in the cluster", mine.Timeline, mine.LSN, theirs)
		if local.Position.Timeline == target {
			return RejoinPlan{RejoinClone, why}, true // pg_rewind would see one timeline
		}
		return rewind(local, why), true
	}
	return RejoinPlan{}, false
}

// rewind plans pg_rewind, or a clone where that does not work.
func rewind(local LocalData, why string) RejoinPlan {
	if !local.CanRewind {
		return RejoinPlan{RejoinClone, why + ", and without checksums or wal_log_hints it cannot be rewound"}
	}
	return RejoinPlan{RejoinRewind, why}
}
