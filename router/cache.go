package router

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

const (
	// ways is how many statements share a set, and so how many places a look-up
	// must compare.
	ways = 4
	// maxCachedSQL is the longest text worth a place, in bytes. Longer ones are
	// mostly bulk inserts that are never seen again.
	maxCachedSQL = 8 << 10
)

type cacheSet [ways]atomic.Pointer[Statement]

// A Cache remembers the statements of recent SQL texts. Its size is bounded,
// readers never wait, and it is safe for concurrent use.
type Cache struct {
	seed maphash.Seed
	sets []cacheSet
	mask uint64 // len(sets) - 1, all ones
}

// NewCache returns a cache for at least entries statements: their number is
// rounded up to a power of two.
func NewCache(entries int) *Cache {
	n := 1
	if sets := (max(entries, 1) + ways - 1) / ways; sets > 1 {
		n = 1 << bits.Len(uint(sets-1))
	}
	return &Cache{seed: maphash.MakeSeed(), sets: make([]cacheSet, n), mask: uint64(n - 1)}
}

// Get returns what sql is. Callers with the same text share one Statement for
// as long as it stays in the cache; texts above 8 KiB never enter it.
func (c *Cache) Get(sql string) *Statement {
	if len(sql) > maxCachedSQL {
		return Classify(sql)
	}
	hash := maphash.String(c.seed, sql)
	set := &c.sets[hash&c.mask]
	if s := set.find(hash, sql); s != nil {
		return s
	}
	return set.add(hash, sql)
}

// Len returns how many statements the cache holds.
func (c *Cache) Len() int {
	n := 0
	for i := range c.sets {
		for w := range c.sets[i] {
			if c.sets[i][w].Load() != nil {
				n++
			}
		}
	}
	return n
}

func (set *cacheSet) find(hash uint64, sql string) *Statement {
	for w := range set {
		if s := set[w].Load(); s != nil && s.hash == hash && s.SQL == sql {
			if !s.recent.Load() { // a store on every hit would bounce between cores
				s.recent.Store(true)
			}
			return s
		}
	}
	return nil
}

// add classifies sql and gives it a place. If another goroutine was faster, the
// statement of that one is returned, so that both learn the same.
func (set *cacheSet) add(hash uint64, sql string) *Statement {
	s := Classify(sql)
	s.hash = hash
	s.recent.Store(true)
	for {
		place, old := set.victim()
		if place.CompareAndSwap(old, s) {
			return s
		}
		if first := set.find(hash, sql); first != nil {
			return first
		}
	}
}

// victim returns the place to give away and what is there now: an empty place,
// else one that nobody asked for since the last search, else any; but what was
// learned from a standby only if nothing else is left.
func (set *cacheSet) victim() (*atomic.Pointer[Statement], *Statement) {
	best, rank := 0, 4
	var found *Statement
	for w := range set {
		s := set[w].Load()
		if r := evictionRank(s); r < rank {
			best, rank, found = w, r, s
		}
	}
	for w := range set {
		if s := set[w].Load(); s != nil {
			s.recent.Store(false)
		}
	}
	return &set[best], found
}

// evictionRank orders statements by how little would be lost without them.
func evictionRank(s *Statement) int {
	switch {
	case s == nil:
		return 0
	case s.learned.Load():
		return 3
	case s.recent.Load():
		return 2
	default:
		return 1
	}
}
