package pgfake

import "slices"

// An answer is a reply registered for the statements that match.
type answer struct {
	matches func(sql string) bool
	reply   Reply
}

// An injected fault waits for a statement that matches.
type injected struct {
	matches func(sql string) bool
	fault   Fault
	left    int // how often it still happens; negative for always
}

// Handle registers the reply to the statements that match the pattern: their
// exact text; with a * at its end a prefix; with a ~ in front a regular
// expression. White space, comments and a semicolon at the end do not count.
// What was registered last is asked first.
func (n *Node) Handle(pattern string, r Reply) {
	a := answer{matcher(pattern), r}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.answers = append([]answer{a}, n.answers...)
}

// Inject makes something go wrong with the next times statements that match
// the pattern (see Handle), also with COMMIT and other statements the node
// answers by itself; with times 0 it goes wrong until the returned function is called.
func (n *Node) Inject(pattern string, times int, f Fault) (remove func()) {
	if times == 0 {
		times = -1
	}
	i := &injected{matcher(pattern), f, times}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.faults = append(n.faults, i)
	return func() {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		i.left = 0
	}
}

// takeFault returns the fault that waits for sql and uses it up.
func (n *Node) takeFault(sql string, parsing bool) (Fault, bool) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.faults = slices.DeleteFunc(n.faults, func(i *injected) bool { return i.left == 0 })
	for _, i := range n.faults {
		if i.fault.AtParse == parsing && i.matches(sql) {
			i.left--
			return i.fault, true
		}
	}
	return Fault{}, false
}

// reply asks the cluster's handlers, then the node's, then the model.
func (s *session) reply(q Query) (Reply, bool) {
	n := s.node
	n.cluster.mu.Lock()
	handlers, answers := n.cluster.handlers, n.answers
	n.cluster.mu.Unlock()
	for _, h := range slices.Backward(handlers) {
		if r, ok := h(q); ok {
			return r, true
		}
	}
	for _, a := range answers {
		if a.matches(q.SQL) {
			return a.reply, true
		}
	}
	return s.evaluate(q)
}

// tried notes that a connection tried to execute a statement.
func (n *Node) tried(e *Entry) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.counters.Statements++
	n.cluster.log = append(n.cluster.log, e)
}

// count changes the counters.
func (n *Node) count(change func(*Counters)) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	change(&n.counters)
}
