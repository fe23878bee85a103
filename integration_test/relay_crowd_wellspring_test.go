package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A wellspring is a server whose WAL is made up, so that it comes as fast as it
// is taken, from any position, and whoever has some can tell whether it is right.
type wellspring struct {
	t        testing.TB
	server   *replication.Server
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	end     wal.LSN       // guarded by mu; how far its WAL goes
	changed chan struct{} // guarded by mu; closed when end has moved
	conns   []net.Conn    // guarded by mu
}

const (
	wellBegin = wal.LSN(0x1000000)
	// wellPeriod is after how many bytes its WAL repeats itself: prime, so that no
	// byte that comes from a chunk, page or buffer's length too far off is right.
	wellPeriod  = 1_000_003
	wellMessage = 128 << 10
)

// wellWater is one period, and as much more that any message lies in it whole.
var wellWater = sync.OnceValue(func() []byte {
	var seed [32]byte
	water := make([]byte, wellPeriod+wellMessage)
	rand.NewChaCha8(seed).Read(water[:wellPeriod])
	copy(water[wellPeriod:], water)
	return water
})

// startWellspring starts one without any WAL.
func startWellspring(t testing.TB) *wellspring {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.OK(t, err)
	w := &wellspring{t: t, listener: listener, end: wellBegin, changed: make(chan struct{})}
	w.server = &replication.Server{
		Authenticate: func(replication.Startup) replication.Method { return replication.Trust },
		Parameters: func() map[string]string {
			return map[string]string{"server_version": "15.18", "integer_datetimes": "on", "in_hot_standby": "off"}
		},
	}
	w.running.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

func (w *wellspring) conninfo() string { return conninfoTo(w.t, w.listener.Addr().String()) }

func (w *wellspring) close() {
	w.listener.Close()
	w.mu.Lock()
	for _, c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	w.running.Wait()
}

// flow lets it have n bytes of WAL more, and returns how far it then goes.
func (w *wellspring) flow(n int64) wal.LSN {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end += wal.LSN(n)
	close(w.changed)
	w.changed = make(chan struct{})
	return w.end
}

func (w *wellspring) now() (end wal.LSN, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end, w.changed
}

func (w *wellspring) accept() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		w.conns = append(w.conns, conn)
		w.mu.Unlock()
		w.running.Go(func() {
			defer conn.Close()
			if s, err := w.server.Accept(context.Background(), conn); err == nil {
				w.serve(s)
			}
		})
	}
}

// serve answers what a relay asks.
func (w *wellspring) serve(s *replication.Session) {
	for {
		command, err := s.ReadCommand()
		if err != nil {
			return
		}
		end, _ := w.now()
		switch c := command.(type) {
		case replication.IdentifySystem:
			err = s.Result("IDENTIFY_SYSTEM", []replication.Column{{Name: "systemid"}, {Name: "timeline"}, {Name: "xlogpos"}, {Name: "dbname"}},
				[][]byte{[]byte("7000000000000000001"), []byte("1"), []byte(end.String()), nil})
		case replication.Show:
			err = s.Result("SHOW", []replication.Column{{Name: c.Name}}, [][]byte{[]byte("16MB")})
		case replication.StartReplication:
			w.pour(s, c.At)
			return
		default:
			err = s.Fail(&replication.Error{Code: "0A000", Message: fmt.Sprintf("a wellspring has nothing but WAL: %T", c)})
		}
		if err != nil {
			return
		}
	}
}

// pour sends WAL from at on until the connection ends.
func (w *wellspring) pour(s *replication.Session, at wal.LSN) {
	if s.StartCopy() != nil {
		return
	}
	gone := make(chan struct{})
	w.running.Go(func() {
		defer close(gone)
		for {
			payload, err := s.ReadCopy()
			if err != nil {
				return
			}
			if status, err := replication.ParseStatus(payload); err == nil && status.Reply {
				end, _ := w.now()
				s.Write(replication.AppendKeepalive(nil, end, time.Now(), false))
			}
		}
	})
	for {
		end, changed := w.now()
		for at < end {
			size := int(min(wellMessage-at%8192, end-at))
			if err := s.Write(replication.AppendDataHeader(nil, at, end, time.Now(), size), waterAt(at, size)); err != nil {
				return
			}
			at += wal.LSN(size)
		}
		select {
		case <-changed:
		case <-gone:
			return
		}
	}
}

// waterAt returns what WAL there is at a position.
func waterAt(at wal.LSN, size int) []byte { return wellWater()[at%wellPeriod:][:size] }

// checkWater says whether WAL at a position is what was poured.
func checkWater(at wal.LSN, p []byte) error {
	if !bytes.Equal(p, waterAt(at, len(p))) {
		return fmt.Errorf("%d bytes of WAL at %s are not what the source has there", len(p), at)
	}
	return nil
}
