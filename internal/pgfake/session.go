package pgfake

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// errGone ends a session: nothing more is to be said on its connection.
var errGone = errors.New("pgfake: connection is gone")

// A session is one backend: it serves one connection in one goroutine, which
// alone touches the fields without a guard.
type session struct {
	node    *Node
	conn    *Conn
	backend *pgproto3.Backend
	types   *pgtype.Map
	number  int    // in the cluster, from 1; 0 before startup is done
	secret  []byte // what a CancelRequest must know

	prepared map[string]*prepared
	portals  map[string]*portal
	skipping bool // until the next Sync, after an error
	counted  int  // writes of the client already counted as round trips
	mute     bool // the client hears nothing any more
	budget   int  // bytes the client still hears; negative for no limit
	tx       transaction
	settings settings

	cancel chan struct{} // holds one CancelRequest
	fatal  chan struct{} // closed by Terminate
	dead   chan struct{} // closed when the connection is reset

	ending, killing sync.Once // close fatal and dead
}

func newSession(n *Node, conn *Conn) *session {
	s := &session{
		node: n, conn: conn, types: pgtype.NewMap(), budget: -1,
		prepared: make(map[string]*prepared), portals: make(map[string]*portal),
		cancel: make(chan struct{}, 1), fatal: make(chan struct{}), dead: make(chan struct{}),
	}
	s.backend = pgproto3.NewBackend(conn, s)
	s.tx.status = 'I'
	s.settings.init(n.cluster)
	return s
}

// kill resets the connection. It may be called from anywhere.
func (s *session) kill() {
	s.killing.Do(func() { close(s.dead) })
	s.conn.abort()
}

// terminate makes the session end with 57P01. It may be called from anywhere.
func (s *session) terminate() {
	s.ending.Do(func() { close(s.fatal) })
	s.conn.in.setDeadline(longAgo)
}

// serve answers the client until the connection ends.
func (s *session) serve() {
	defer s.end()
	if err := s.startup(); err != nil {
		return
	}
	for {
		msg, err := s.backend.Receive()
		if err != nil || s.awake() != nil {
			s.lastWords()
			return
		}
		if err := s.handle(msg); err != nil {
			return
		}
	}
}

// end closes the connection and forgets the session.
func (s *session) end() {
	_ = s.conn.Close()
	s.node.cluster.mu.Lock()
	defer s.node.cluster.mu.Unlock()
	delete(s.node.sessions, s)
	if s.number > 0 {
		s.node.counters.Open--
	}
}

// lastWords tells an idle client that its session was terminated.
func (s *session) lastWords() {
	select {
	case <-s.fatal:
		s.backend.Send(errTerminated.response("FATAL"))
		_ = s.backend.Flush()
	default:
	}
}

// awake waits while the node is frozen.
func (s *session) awake() error {
	for {
		s.node.cluster.mu.Lock()
		frozen, changed := s.node.frozen, s.node.changed
		s.node.cluster.mu.Unlock()
		if !frozen {
			return nil
		}
		select {
		case <-changed:
		case <-s.dead:
			return errGone
		}
	}
}

// Write sends to the client what it is still meant to hear.
func (s *session) Write(b []byte) (int, error) {
	if err := s.awake(); err != nil {
		return 0, err
	}
	switch {
	case s.mute:
		return len(b), nil
	case s.budget < 0:
		return s.conn.Write(b)
	}
	n := min(s.budget, len(b))
	s.budget -= n
	if _, err := s.conn.Write(b[:n]); err != nil || n < len(b) {
		return n, errGone
	}
	return n, nil
}

// startup does what comes before the first ReadyForQuery. It costs no latency:
// DialLatency paid for it.
func (s *session) startup() error {
	for {
		msg, err := s.backend.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		if err := s.awake(); err != nil {
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.StartupMessage:
			return s.welcome(msg.Parameters)
		case *pgproto3.CancelRequest:
			s.node.cancelRequest(int(msg.ProcessID), msg.SecretKey)
			return errGone
		default: // SSLRequest and GSSEncRequest: not supported
			if _, err := s.conn.Write([]byte("N")); err != nil {
				return err
			}
		}
	}
}

// welcome lets the client in, or tells it why not.
func (s *session) welcome(options map[string]string) error {
	if err := s.register(); err != nil {
		s.backend.Send(err.response("FATAL"))
		_ = s.backend.Flush()
		return errGone
	}
	for name, value := range options {
		s.settings.option(name, value)
	}
	s.backend.Send(&pgproto3.AuthenticationOk{})
	s.report()
	s.backend.Send(&pgproto3.BackendKeyData{ProcessID: uint32(s.pid()), SecretKey: s.secret})
	s.backend.Send(&pgproto3.ReadyForQuery{TxStatus: s.tx.status})
	latency := s.node.roundTrip()
	s.conn.in.update(func() { s.conn.in.delay = latency / 2 })
	if err := s.backend.Flush(); err != nil {
		return err
	}
	s.conn.out.update(func() { s.conn.out.delay = latency - latency/2 })
	return nil
}

// pid is the process id the client sees.
func (s *session) pid() int { return 1000 + s.number }

// register counts the session in, unless the node takes no connections.
func (s *session) register() *Error {
	n := s.node
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	switch {
	case n.refusal != nil:
		return n.refusal
	case n.limit > 0 && n.counters.Open >= n.limit:
		return &Error{Code: "53300", Message: "sorry, too many clients already"}
	}
	n.cluster.conns++
	n.counters.Opened++
	n.counters.Open++
	s.number = n.cluster.conns
	s.secret = binary.BigEndian.AppendUint32(nil, randomUint32())
	return nil
}

func randomUint32() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])
}

// cancelRequest interrupts what a session waits for.
func (n *Node) cancelRequest(pid int, secret []byte) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.counters.Cancels++
	for s := range n.sessions {
		if s.number > 0 && s.pid() == pid && slices.Equal(s.secret, secret) {
			select {
			case s.cancel <- struct{}{}:
			default:
			}
		}
	}
}

// report tells the client the parameters whose values it does not know yet.
func (s *session) report() {
	for _, p := range s.parameters() {
		if s.settings.reported[p.name] != p.value {
			s.settings.reported[p.name] = p.value
			s.backend.Send(&pgproto3.ParameterStatus{Name: p.name, Value: p.value})
		}
	}
}

// ready ends the answer to a Sync or a Query.
func (s *session) ready() error {
	s.report()
	s.backend.Send(&pgproto3.ReadyForQuery{TxStatus: s.tx.status})
	return s.backend.Flush()
}

// countRoundTrip notes a Sync or Query; several in one write of the client are
// one round trip.
func (s *session) countRoundTrip() {
	taken := s.conn.in.chunksTaken()
	s.node.count(func(c *Counters) {
		c.Syncs++
		if taken != s.counted {
			c.RoundTrips++
		}
	})
	s.counted = taken
}
