package failover

import (
	"cmp"
	"slices"

	"github.com/heliosdb/helios/wal"
)

// Need returns how many of Members have to be sealed before one is elected: with any so
// many, one is among them that has flushed whatever K of them have (R + K > N). It is 0
// where commits wait for nobody, and where nobody could have confirmed one.
func (s SyncSet) Need() int {
	if s.K == 0 || s.K > len(s.Members) {
		return 0
	}
	return len(s.Members) - s.K + 1
}

// Has reports whether node is one of Members.
func (s SyncSet) Has(node string) bool { return slices.Contains(s.Members, node) }

// Equal reports whether both are the same: Members are in order.
func (s SyncSet) Equal(t SyncSet) bool { return s.K == t.K && slices.Equal(s.Members, t.Members) }

// covers reports whether what a primary confirms by gate is sure to be found by an election
// that asks for Need of s: of any K of the gate, together with the primary, K of s are part.
func (s SyncSet) covers(gate SyncSet, primary string) bool {
	if s.K == 0 || gate.K > len(gate.Members) {
		return true // no election looks for it, or it confirms nothing
	}
	sure := gate.K - outside(gate, s)
	if s.Has(primary) {
		sure = max(sure, 0) + 1
	}
	return sure >= s.K
}

// outside counts the members of s that are not in t.
func outside(s, t SyncSet) int {
	n := 0
	for _, m := range s.Members {
		if !t.Has(m) {
			n++
		}
	}
	return n
}

// without returns s but for node, which its K does not count any more.
func (s SyncSet) without(node string) SyncSet {
	if !s.Has(node) {
		return s
	}
	members := slices.DeleteFunc(slices.Clone(s.Members), func(m string) bool { return m == node })
	return SyncSet{Members: members, K: max(s.K-1, 0)}
}

// bridge returns the gate that a primary is to have while the log goes from one set to
// another: confirmed by it, a commit is found by an election after either. The larger one
// is in the log first, the smaller one is at the gate first (Patroni's quorum.py has the
// same order); where neither is larger, commits wait for both.
func bridge(from, to SyncSet, primary string) SyncSet {
	if from.covers(to, primary) {
		return to
	}
	if rest := from.without(primary); rest.K >= to.K && to.covers(rest, primary) {
		return rest
	}
	var both SyncSet
	for _, m := range slices.Concat(from.Members, to.Members) {
		if m != primary && !both.Has(m) {
			both.Members = append(both.Members, m)
		}
	}
	slices.Sort(both.Members)
	rest := from.without(primary)
	both.K = max(rest.K+outside(both, from), to.K+outside(both, to))
	return both
}

// found reports whether sealed is enough to elect from: Need of the sync set, or the last
// primary itself if it lacks nothing. Where commits wait for nobody, anyone may do.
func (s *State) found(sealed []Sealed) bool {
	n := 0
	for _, a := range sealed {
		switch {
		case a.Position.LSN == 0:
		case a.Node == s.Primary && s.whole():
			return true
		case s.SyncSet.Has(a.Node):
			n++
		}
	}
	return n >= s.SyncSet.Need()
}

// whole reports whether the last primary has every commit that was acknowledged.
func (s *State) whole() bool { return s.Until == wal.Position{} }

// reached returns the highest timeline that the elected node has something of, or will have
// fetched; at least the one that was ready last.
func (s *State) reached() wal.Timeline {
	t := max(s.Timeline, s.Until.Timeline)
	for _, a := range s.last().Sealed {
		if a.Node == s.Primary {
			t = max(t, a.Position.Timeline)
		}
	}
	return t
}

// sources returns who has Until, of those that were sealed; where nobody is known to have it,
// who may.
func (s *State) sources() []Member {
	if s.whole() {
		return nil
	}
	sealed := s.last().Sealed
	far := s.furthest(sealed)
	var have, may []Member
	for _, m := range s.Members {
		if m.Name == s.Primary || m.Witness {
			continue
		}
		may = append(may, m)
		i := slices.IndexFunc(sealed, func(a Sealed) bool { return a.Node == m.Name })
		if i >= 0 && !s.Astray(sealed[i].Reign, sealed[i].Position) && s.further(sealed[i], far) == 0 {
			have = append(have, m)
		}
	}
	if len(have) == 0 {
		return may
	}
	return have
}

// further compares how far two that were sealed are: by timeline, then by LSN. Timelines on
// which nobody was ready yet may have the same number and be different ones: there the newer
// epoch counts first. (Raft compares terms before lengths for the same reason.)
func (s *State) further(a, b Sealed) int {
	reign := func(a Sealed) Epoch {
		if a.Position.Timeline > s.Timeline {
			return a.Reign
		}
		return 0
	}
	return cmp.Or(cmp.Compare(reign(a), reign(b)), a.Position.Compare(b.Position))
}

// furthest returns who of sealed has the most; zero if nobody has anything that counts.
func (s *State) furthest(sealed []Sealed) Sealed {
	var far Sealed
	for _, a := range sealed {
		if !s.Astray(a.Reign, a.Position) && s.further(a, far) > 0 {
			far = a
		}
	}
	return far
}
