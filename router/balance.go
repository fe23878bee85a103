package router

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/heliosdb/helios/wal"
)

// Balance says how reads are spread over the nodes that may answer them.
type Balance uint8

const (
	// LeastConns takes, of two nodes drawn by weight, the one with fewer
	// statements under way per weight. It needs no clock.
	LeastConns Balance = iota
	// RoundRobin takes one after the other, each as often as its weight says.
	RoundRobin
	// Latency takes, of two nodes drawn by weight, the one where the average
	// latency times the length of the queue is less.
	Latency
	// Random draws by weight.
	Random
)

// balanceNames are the text forms.
var balanceNames = [...]string{
	LeastConns: "least_conns",
	RoundRobin: "round_robin",
	Latency:    "latency",
	Random:     "random",
}

// String returns the text form, such as least_conns.
func (bal Balance) String() string {
	if int(bal) >= len(balanceNames) {
		return fmt.Sprintf("Balance(%d)", uint8(bal))
	}
	return balanceNames[bal]
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (bal Balance) MarshalText() ([]byte, error) { return []byte(bal.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it takes the names that
// String returns.
func (bal *Balance) UnmarshalText(text []byte) error {
	for i, name := range balanceNames {
		if name == string(text) {
			*bal = Balance(i)
			return nil
		}
	}
	return fmt.Errorf("unknown balance %q: want round_robin, least_conns, latency or random", text)
}

// MaxBackends is how many nodes Pick tells apart; it ignores those beyond.
const MaxBackends = 256

// Set is a set of backends by their index, each less than [MaxBackends]. The
// zero Set is empty.
type Set [MaxBackends / 64]uint64

// Add puts i into the set.
func (s *Set) Add(i int) { s[i/64%len(s)] |= 1 << (i % 64) }

// Has reports whether i is in the set.
func (s *Set) Has(i int) bool { return s[i/64%len(s)]&(1<<(i%64)) != 0 }

// Len returns how many are in the set.
func (s *Set) Len() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// remove takes i out of the set.
func (s *Set) remove(i int) { s[i/64%len(s)] &^= 1 << (i % 64) }

// join adds the members of other.
func (s *Set) join(other *Set) {
	for i := range s {
		s[i] |= other[i]
	}
}

// nth returns the n-th member of the set, counted from 0; the set has more.
func (s *Set) nth(n int) int {
	for i, word := range s {
		size := bits.OnesCount64(word)
		if n >= size {
			n -= size
			continue
		}
		for range n {
			word &= word - 1
		}
		return i*64 + bits.TrailingZeros64(word)
	}
	return -1
}

// Need is what a read asks of the node that answers it. The zero Need takes any.
type Need struct {
	Replayed wal.LSN       // the node's queries are known to see this position; 0: does not matter
	MaxLag   time.Duration // nodes known to be further behind do not suit; 0: does not matter
	Zone     string        // nodes of this zone come first; "": no preference
	Now      int64         // coarse clock in ns, for slow start and holding off; 0: neither
	Tried    Set           // indexes that have been tried

	// MaxWeight is the highest Weight among the backends, worked out when the
	// list of them was made. 0: Pick looks for itself, which with more than a
	// few backends takes longer than the choice.
	MaxWeight int
}

// Pick returns the index of the backend that answers next, or -1 if none is
// eligible. Eligible is who was not tried, is not kept away, has replayed what
// the read needs and lags no more than it accepts; if some of those are in the
// read's zone, only they. When more than half of the backends are kept away,
// something else is wrong than the nodes, and nobody is.
//
// seed is the session's own and changes with every call; sessions should start
// with different ones. Pick allocates nothing, takes no lock and reads no clock.
// It is safe for concurrent use with different seeds.
func (bal Balance) Pick(backends []*Backend, need *Need, seed *uint64) int {
	if len(backends) > MaxBackends {
		backends = backends[:MaxBackends]
	}
	*seed++
	c := choice{backends: backends, need: need, random: *seed, turn: *seed}
	if len(backends) == 0 {
		return -1
	}
	if bal == RoundRobin {
		return c.inTurn()
	}
	first := c.draw(-1)
	if first < 0 || bal == Random || len(backends) == 1 {
		return first
	}
	second := c.draw(first)
	if second < 0 || second == first {
		return first
	}
	if bal == Latency {
		return c.faster(first, second)
	}
	return c.freer(first, second)
}

// freer returns the backend with less to do in proportion to its weight. If they
// are equal, the weights have spoken when the first was drawn.
func (c *choice) freer(first, second int) int {
	a, b := c.backends[first], c.backends[second]
	if b.inflight.Load()*int64(a.weight()) < a.inflight.Load()*int64(b.weight()) {
		return second
	}
	return first
}

// faster returns the backend where one more statement is likely done sooner:
// latency × (1 + in flight / weight). The loser's latency fades a little, or a
// node that was slow once would never be measured again.
func (c *choice) faster(first, second int) int {
	a, b := c.backends[first], c.backends[second]
	la, lb := a.latency.Load(), b.latency.Load()
	if la == 0 || lb == 0 {
		return c.freer(first, second)
	}
	wa, wb := int64(a.weight()), int64(b.weight())
	winner, loser := first, b
	if float64(lb)*float64((wb+b.inflight.Load())*wa) < float64(la)*float64((wa+a.inflight.Load())*wb) {
		winner, loser = second, a
	}
	if c.next()%8 == 0 {
		loser.forgive()
	}
	return winner
}
