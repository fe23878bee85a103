package router

import "math/bits"

// draws is how often a backend is drawn at random before all are looked at.
const draws = 12

// choice is one Pick under way.
//
// It looks at two or three backends only, however many there are: it draws
// uniformly and rejects who is not eligible, which leaves the eligible ones with
// equal chances (probing on to the next would favour the neighbours of the
// others). A weight is a chance to be accepted. When luck fails, survey finds
// them all.
type choice struct {
	backends []*Backend
	need     *Need
	random   uint64 // state of the generator
	turn     uint64 // the session's counter, for round robin

	surveyed bool
	eligible Set // valid if surveyed
	total    int // valid if surveyed: weight of the eligible
	uneven   bool

	panicked panicked
	heaviest int // highest weight; 0: not looked for yet
}

// panicked says whether so many backends are kept away that nobody is.
type panicked uint8

const (
	panicUnknown panicked = iota
	panicNo
	panicYes
)

// next returns random bits (splitmix64).
func (c *choice) next() uint64 {
	c.random += 0x9E3779B97F4A7C15
	z := c.random
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// below returns a random number less than n; n > 0.
func (c *choice) below(n int) int {
	high, _ := bits.Mul64(c.next(), uint64(n))
	return int(high)
}

// inTurn returns the eligible backend whose turn it is. The turns of those who
// are not eligible are drawn for.
func (c *choice) inTurn() int {
	if c.evenWeights() {
		if i := int(c.turn % uint64(len(c.backends))); c.accepts(i) {
			return i
		}
		return c.draw(-1)
	}
	c.survey()
	if c.total == 0 {
		return -1
	}
	return c.at(int(c.turn % uint64(c.total)))
}

// draw returns an eligible backend other than not, each with a chance in
// proportion to its weight; -1 if there is none.
func (c *choice) draw(not int) int {
	if !c.surveyed {
		for range draws {
			i := c.below(len(c.backends))
			if i != not && c.accepts(i) && c.acceptsWeight(i) {
				return i
			}
		}
		c.survey()
	}
	if not >= 0 && c.eligible.Has(not) {
		c.eligible.remove(not)
		c.total -= c.backends[not].weight()
	}
	if c.total <= 0 {
		return -1
	}
	return c.at(c.below(c.total))
}

// at returns the eligible backend that covers position r of the total weight.
func (c *choice) at(r int) int {
	if !c.uneven {
		return c.eligible.nth(r)
	}
	for i, b := range c.backends {
		if !c.eligible.Has(i) {
			continue
		}
		if r -= b.weight(); r < 0 {
			return i
		}
	}
	return -1
}

// accepts reports whether backend i is eligible and, if it has just come back,
// lucky.
func (c *choice) accepts(i int) bool {
	b, need := c.backends[i], c.need
	switch {
	case need.Zone != "" && b.Zone != need.Zone,
		need.Tried.Has(i),
		!b.suits(need),
		b.away(need.Now) && !c.panics():
		return false
	}
	return c.lucky(b)
}

// lucky reports whether a backend takes part, which one in its slow start does
// only now and then.
func (c *choice) lucky(b *Backend) bool {
	chance := b.ramp(c.need.Now)
	return chance == rampScale || c.next()%rampScale < chance
}

// acceptsWeight reports whether backend i is accepted for its weight.
func (c *choice) acceptsWeight(i int) bool {
	if c.evenWeights() {
		return true
	}
	return c.below(c.heaviest) < c.backends[i].weight()
}

// evenWeights reports whether no weight is above 1, which is the common case.
// Other equal weights are accepted always, by acceptsWeight.
func (c *choice) evenWeights() bool {
	if c.heaviest == 0 {
		c.heaviest = max(c.need.MaxWeight, 1)
		if c.need.MaxWeight == 0 {
			c.heaviest = MaxWeight(c.backends)
		}
	}
	return c.heaviest == 1
}

// MaxWeight returns the highest weight among the backends, at least 1.
func MaxWeight(backends []*Backend) int {
	heaviest := 1
	for _, b := range backends {
		heaviest = max(heaviest, b.Weight)
	}
	return heaviest
}

// panics reports whether more than half of the backends are kept away. It is
// asked only when one of them was drawn: as long as none is, it does not matter.
func (c *choice) panics() bool {
	if c.panicked == panicUnknown {
		away := 0
		for _, b := range c.backends {
			if b.away(c.need.Now) {
				away++
			}
		}
		c.panicked = panicNo
		if 2*away > len(c.backends) {
			c.panicked = panicYes
		}
	}
	return c.panicked == panicYes
}

// survey finds all eligible backends.
func (c *choice) survey() {
	var near, far Set
	for i, b := range c.backends {
		if c.need.Tried.Has(i) || !b.suits(c.need) || b.away(c.need.Now) && !c.panics() {
			continue
		}
		if b.Zone == c.need.Zone {
			near.Add(i)
		} else {
			far.Add(i)
		}
	}
	switch {
	case c.need.Zone == "":
		near.join(&far)
	case near == Set{}:
		near = far
	}
	c.eligible, c.surveyed = near, true
	c.spare()
}

// spare takes those out of the eligible who are in their slow start and not
// lucky, unless nobody would be left, and adds up the weights of the others.
func (c *choice) spare() {
	lucky := c.eligible
	left := 0
	for i, b := range c.backends {
		if !c.eligible.Has(i) {
			continue
		}
		if c.lucky(b) {
			left++
		} else {
			lucky.remove(i)
		}
	}
	if left > 0 {
		c.eligible = lucky
	}
	for i, b := range c.backends {
		if c.eligible.Has(i) {
			c.total += b.weight()
			c.uneven = c.uneven || b.weight() != 1
		}
	}
}
