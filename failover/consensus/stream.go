package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// StreamMagic is the first byte of every stream between two nodes. On a port that
// is shared it says whose the connection is.
const StreamMagic = 0x01

// greetingTimeout is how long a node that accepted a connection waits to hear who calls.
const greetingTimeout = 5 * time.Second

// An Address is a host:port as a [net.Addr]. The host may be a name: others resolve it.
type Address string

// Network returns "tcp".
func (Address) Network() string { return "tcp" }

func (a Address) String() string { return string(a) }

// A StreamLayer carries the streams between nodes over a port that others use
// as well. It belongs to the one [Node] that it is given to, which closes it.
//
// Who dials writes a greeting, and waits for the answer:
//
//	StreamMagic, 8 bytes: the cluster, 1 byte: n, n bytes: the name of the node that is meant
//	1 byte: accepted, or why not
//
// A connection that the listener hands out has the whole greeting before it, StreamMagic too: whoever
// looks at the first byte in order to give connections to the listener has to
// leave it there (MSG_PEEK, or a reader that begins with it).
type StreamLayer struct {
	listener  net.Listener
	advertise net.Addr
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	self      *identity // set before the first connection

	mu       sync.Mutex
	closed   bool
	open     map[*stream]struct{}
	accepted sync.WaitGroup // streams that raft has not closed yet; nothing is added once closed
}

// NewStreamLayer returns a layer over a listener and a way to dial other nodes.
// advertise is where the others find this one; see [Address]. dial returns a
// connection to a companion on which nothing was sent yet, but for what TLS needs.
func NewStreamLayer(listener net.Listener, advertise net.Addr, dial func(ctx context.Context, addr string) (net.Conn, error)) *StreamLayer {
	return &StreamLayer{listener: listener, advertise: advertise, dial: dial, open: map[*stream]struct{}{}}
}

// Accept returns the next connection. It does not wait for the greeting: the
// first Read does.
func (l *StreamLayer) Accept() (net.Conn, error) {
	conn, err := l.listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.add(&stream{Conn: conn, layer: l, greeted: sync.OnceValue(func() error { return l.self.answer(conn) })})
}

// Dial opens a stream to a node; see [target].
func (l *StreamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	name, addr := splitTarget(to)
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	conn, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := errors.Join(conn.SetDeadline(deadline), l.self.greet(conn, name), conn.SetDeadline(time.Time{})); err != nil {
		return nil, errors.Join(fmt.Errorf("%s at %s: %w", name, addr, err), conn.Close())
	}
	return l.add(&stream{Conn: conn, layer: l})
}

// Addr returns where others find this node.
func (l *StreamLayer) Addr() net.Addr { return l.advertise }

// Close closes the listener and every stream.
func (l *StreamLayer) Close() error {
	l.mu.Lock()
	l.closed = true
	open := l.open
	l.open = nil
	l.mu.Unlock()
	err := l.listener.Close()
	for s := range open {
		_ = s.Conn.Close() // it is being thrown away
	}
	return err
}

// wait waits until raft has let go of every stream that was accepted.
func (l *StreamLayer) wait() { l.accepted.Wait() }

func (l *StreamLayer) add(s *stream) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(net.ErrClosed, s.Conn.Close())
	}
	l.open[s] = struct{}{}
	if s.greeted != nil {
		l.accepted.Add(1)
	}
	return s, nil
}

// A stream is a connection between two nodes.
type stream struct {
	net.Conn
	layer   *StreamLayer
	greeted func() error // of one that was accepted: hears the greeting, once
	closing sync.Once
}

// Read hears the greeting first. Raft reads before it writes.
func (s *stream) Read(p []byte) (int, error) {
	if s.greeted != nil {
		if err := s.greeted(); err != nil {
			return 0, err
		}
	}
	return s.Conn.Read(p)
}

// Close closes the connection.
func (s *stream) Close() error {
	s.closing.Do(func() {
		s.layer.mu.Lock()
		delete(s.layer.open, s)
		s.layer.mu.Unlock()
		if s.greeted != nil {
			s.layer.accepted.Done()
		}
	})
	return s.Conn.Close()
}

// target is an address together with the name of the node that is meant, as
// Dial wants it. Raft itself looks at neither.
func target(name raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(name) + "@" + string(addr))
}

func splitTarget(to raft.ServerAddress) (name, addr string) {
	i := strings.LastIndexByte(string(to), '@')
	return string(to[:max(i, 0)]), string(to[i+1:])
}

// Answers to a greeting.
const (
	accepted     = 0
	otherNode    = 1
	otherCluster = 2
)

// An identity is who a node is to those who call it.
type identity struct {
	name  string
	store *store

	mu      sync.Mutex
	cluster uint64 // 0 if it is a member of none yet
}

// greet says on conn who calls whom, and returns why that was not accepted.
func (i *identity) greet(conn net.Conn, name string) error {
	i.mu.Lock()
	cluster := i.cluster
	i.mu.Unlock()
	greeting := binary.BigEndian.AppendUint64([]byte{StreamMagic}, cluster)
	greeting = append(append(greeting, byte(len(name))), name...)
	if _, err := conn.Write(greeting); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	switch answer[0] {
	case accepted:
		return nil
	case otherNode:
		return ErrOtherNode
	case otherCluster:
		return ErrOtherCluster
	}
	return fmt.Errorf("answer %d to a greeting", answer[0])
}

// answer hears on conn who calls, and answers.
func (i *identity) answer(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	head := make([]byte, 1+8+1)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	name := make([]byte, head[9])
	if _, err := io.ReadFull(conn, name); err != nil {
		return err
	}
	answer, refusal := i.admit(binary.BigEndian.Uint64(head[1:]), string(name))
	_, err := conn.Write([]byte{answer})
	return errors.Join(refusal, err, conn.SetDeadline(time.Time{}))
}

// admit decides whether a caller of a cluster means this node. A node that
// belongs to none yet takes the first one that calls it by its name as its own.
func (i *identity) admit(cluster uint64, name string) (byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if name != i.name {
		return otherNode, fmt.Errorf("a call for %s: its address is %s's now", name, i.name)
	}
	if i.cluster == 0 && cluster != 0 {
		if err := i.store.setCluster(cluster); err != nil {
			return otherCluster, err
		}
		i.cluster = cluster
	}
	if cluster != i.cluster || cluster == 0 {
		return otherCluster, errors.New("a call from another cluster")
	}
	return accepted, nil
}
