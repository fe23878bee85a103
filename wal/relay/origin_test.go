package relay

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

const (
	testSegment = 1 << 20
	testStart   = wal.LSN(0x300_0000)
)

// An origin is a server that sends WAL. The WAL is made up, and told apart by
// the timeline that wrote it; the protocol is the real one.
type origin struct {
	t       *testing.T
	net     *memNet
	l       *memListener
	server  *replication.Server
	running sync.WaitGroup

	mu       sync.Mutex
	b        *branch
	salt     byte // of the bytes: another cluster's are others
	flush    wal.LSN
	oldest   wal.LSN // WAL before it has been removed
	silent   bool    // nothing is sent, and nothing answered
	stopping bool    // it asks until all is confirmed, and ends then
	cutAfter int     // the next message ends the connection after so many bytes; negative for none
	changed  chan struct{}
	told     map[string]replication.Status // by application_name
	asked    []time.Time                   // questions while stopping
	conns    map[net.Conn]string
	logins   int
}

// newOrigin starts one on a timeline with the given past.
func newOrigin(t *testing.T, n *memNet, now wal.Timeline, past ...string) *origin {
	t.Helper()
	o := &origin{
		t: t, net: n, l: n.listen(), b: branchOf(t, now, past...), flush: testStart + 1000, cutAfter: -1,
		changed: make(chan struct{}), told: make(map[string]replication.Status), conns: make(map[net.Conn]string),
	}
	o.b.identity.SegmentSize = testSegment
	o.server = &replication.Server{
		Authenticate: func(replication.Startup) replication.Method { return replication.Trust },
		Admit:        o.admit,
		Parameters: func() map[string]string {
			return map[string]string{"server_version": "15.4", "integer_datetimes": "on", "in_hot_standby": o.standby()}
		},
	}
	o.start()
	t.Cleanup(o.close)
	return o
}

func (o *origin) start() {
	l := o.l
	o.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			o.running.Go(func() { o.session(conn) })
		}
	})
}

// stop ends it, as a crash does; restart brings it back.
func (o *origin) stop() {
	_ = o.l.Close()
	o.disconnect()
}

func (o *origin) restart() {
	o.l = o.net.reopen(o.l)
	o.set(func() { o.stopping, o.silent = false, false })
	o.start()
}

func (o *origin) disconnect() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		_ = c.Close()
	}
}

func (o *origin) close() {
	o.stop()
	o.set(func() { o.silent = false })
	o.running.Wait()
}

// set changes it under its lock, and wakes who waits for that.
func (o *origin) set(do func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	do()
	close(o.changed)
	o.changed = make(chan struct{})
}

func get[T any](o *origin, what func() T) T {
	o.mu.Lock()
	defer o.mu.Unlock()
	return what()
}

func (o *origin) standby() string {
	if get(o, func() bool { return o.b.identity.InRecovery }) {
		return "on"
	}
	return "off"
}

func (o *origin) head() wal.LSN { return get(o, func() wal.LSN { return o.flush }) }

// write adds n bytes of WAL.
func (o *origin) write(n int) wal.LSN {
	o.set(func() { o.flush += wal.LSN(n) })
	return o.head()
}

// promote ends the current timeline at at, where the given one begins.
func (o *origin) promote(t wal.Timeline, at wal.LSN) {
	o.set(func() {
		file := string(o.b.files[o.b.timeline()]) + fmt.Sprintf("%s\t%s\ttest\n", o.b.timeline(), at)
		next := *o.b
		if err := next.read(t, []byte(file)); err != nil {
			o.t.Error(err)
		}
		next.identity.InRecovery = false
		o.b, o.flush = &next, at
	})
}

// content returns the WAL of a branch.
func content(b *branch, salt byte, at wal.LSN, n int) []byte {
	p := make([]byte, 0, n)
	for n > 0 {
		t := b.at(at)
		s, _ := b.span(t)
		m := int(min(wal.LSN(n), s.end-at))
		p = append(p, walAt(at, m, byte(t)+salt)...)
		at, n = at+wal.LSN(m), n-m
	}
	begin := at - wal.LSN(len(p))
	for page := begin.PageStart(); page < at; page += pageSize {
		h := pageHeader(page, b.at(page))
		if page >= begin {
			copy(p[page-begin:], h)
		} else if cut := int(begin - page); cut < len(h) {
			copy(p, h[cut:])
		}
	}
	return p
}

// pageHeader returns what a page begins with, as PostgreSQL 15 writes it.
func pageHeader(at wal.LSN, t wal.Timeline) []byte {
	h := binary.LittleEndian.AppendUint16(nil, 0xD110)
	info := uint16(0)
	if at%testSegment == 0 {
		info = 2 // XLP_LONG_HEADER
	}
	h = binary.LittleEndian.AppendUint16(h, info)
	h = binary.LittleEndian.AppendUint32(h, uint32(t))
	h = binary.LittleEndian.AppendUint64(h, uint64(at))
	h = binary.LittleEndian.AppendUint64(h, 0)
	if info != 0 {
		h = binary.LittleEndian.AppendUint64(h, 1) // system identifier
		h = binary.LittleEndian.AppendUint32(h, testSegment)
		h = binary.LittleEndian.AppendUint32(h, pageSize)
	}
	return h
}

func (o *origin) admit(ctx context.Context, _ replication.Startup) error {
	for {
		o.mu.Lock()
		silent, changed := o.silent, o.changed
		o.logins++
		o.mu.Unlock()
		if !silent {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o *origin) session(conn net.Conn) {
	defer conn.Close()
	o.set(func() { o.conns[conn] = "" })
	defer o.set(func() { delete(o.conns, conn) })
	s, err := o.server.Accept(context.Background(), conn)
	if err != nil {
		return
	}
	o.set(func() { o.conns[conn] = s.ApplicationName })
	for {
		c, err := s.ReadCommand()
		if err != nil {
			return
		}
		if err := o.execute(s, conn, c); err != nil {
			return
		}
	}
}

func (o *origin) execute(s *replication.Session, conn net.Conn, command replication.Command) error {
	o.mu.Lock()
	b, flush := o.b, o.flush
	o.mu.Unlock()
	text := func(names ...string) []replication.Column {
		var of []replication.Column
		for _, n := range names {
			of = append(of, replication.Column{Name: n, OID: replication.TypeText})
		}
		return of
	}
	switch c := command.(type) {
	case replication.IdentifySystem:
		return s.Result("IDENTIFY_SYSTEM", text("systemid", "timeline", "xlogpos", "dbname"),
			[][]byte{[]byte(b.identity.System), []byte(b.timeline().String()), []byte(flush.String()), nil})
	case replication.Show:
		return s.Result("SHOW", text(c.Name), [][]byte{[]byte(fmt.Sprintf("%dMB", testSegment>>20))})
	case replication.TimelineHistory:
		if file, ok := b.files[c.Timeline]; ok {
			return s.Result("TIMELINE_HISTORY", text("filename", "content"), [][]byte{[]byte("x"), file})
		}
		return s.Fail(&replication.Error{Code: "58P01", Message: "could not open file"})
	case replication.StartReplication:
		return o.stream(s, conn, c)
	}
	return s.Fail(&replication.Error{Code: "0A000", Message: "not here"})
}

// stream is START_REPLICATION, as a walsender does it.
func (o *origin) stream(s *replication.Session, conn net.Conn, c replication.StartReplication) error {
	o.mu.Lock()
	span, ok := o.b.span(c.Timeline)
	next, flush, oldest := o.b.after(c.Timeline), o.flush, o.oldest
	o.mu.Unlock()
	switch {
	case !ok || c.At > span.end:
		return s.Fail(&replication.Error{Code: "XX000", Message: "requested starting point is not in this server's history"})
	case next.Timeline != 0 && c.At == next.LSN:
		return s.NextTimeline(next)
	case next.Timeline == 0 && c.At > flush:
		return s.Fail(&replication.Error{Code: "XX000", Message: "requested starting point is ahead of the WAL flush position of this server"})
	}
	if err := s.StartCopy(); err != nil {
		return err
	}
	if c.At < oldest {
		return s.Fail(&replication.Error{Code: "58P01", Message: "requested WAL segment has already been removed"})
	}
	heard := make(chan error, 1)
	o.running.Go(func() { heard <- o.hear(s) })
	next, err := o.send(s, conn, c, heard)
	switch {
	case err != nil:
		_ = conn.Close()
		return err
	case next.Timeline == 0: // the client had enough
		if err := s.SendCopyDone(); err != nil {
			return err
		}
		return s.EndCopy(next)
	}
	if err := s.SendCopyDone(); err != nil {
		return err
	}
	if err := <-heard; err != replication.ErrCopyDone { //nolint:errorlint // as it is
		return err
	}
	return s.EndCopy(next)
}

// send sends until the timeline ends, and returns the next; zero if the client
// ends it.
func (o *origin) send(s *replication.Session, conn net.Conn, c replication.StartReplication, heard chan error) (wal.Position, error) {
	at := c.At
	for {
		o.mu.Lock()
		span, _ := o.b.span(c.Timeline)
		next := o.b.after(c.Timeline)
		b, head, silent, stopping, changed, cut := o.b, min(o.flush, span.end), o.silent, o.stopping, o.changed, o.cutAfter
		if next.Timeline != 0 {
			head = span.end
		}
		o.mu.Unlock()
		switch {
		case silent:
		case at < head:
			n := int(min(head-at, maxMessage))
			if at+wal.LSN(n) < head {
				n -= int(at+wal.LSN(n)) % pageSize
			}
			data := content(b, o.salt, at, n)
			header := replication.AppendDataHeader(nil, at, head, time.Now(), n)
			if cut >= 0 {
				o.set(func() { o.cutAfter = -1 })
				whole := append(header, data...)
				_, _ = conn.Write(whole[:min(cut, len(whole))])
				return wal.Position{}, conn.Close()
			}
			if err := s.Write(header, data); err != nil {
				return wal.Position{}, err
			}
			at += wal.LSN(n)
			continue
		case next.Timeline != 0:
			return next, nil
		case stopping:
			if done, err := o.isDone(s, at); done || err != nil {
				if err == nil {
					_ = s.Complete("COPY 0")
				}
				return wal.Position{}, net.ErrClosed
			}
		}
		select {
		case <-changed:
		case err := <-heard:
			if err == replication.ErrCopyDone { //nolint:errorlint // as it is
				return wal.Position{}, nil
			}
			return wal.Position{}, err
		}
	}
}

// isDone is WalSndDone: it asks again as soon as it was answered, until all that
// was sent is confirmed.
func (o *origin) isDone(s *replication.Session, sent wal.LSN) (bool, error) {
	o.mu.Lock()
	told, ok := o.told[s.ApplicationName]
	o.mu.Unlock()
	confirmed := told.Flush
	if confirmed == 0 {
		confirmed = told.Write
	}
	if ok && confirmed == sent {
		return true, nil
	}
	o.mu.Lock()
	o.asked = append(o.asked, time.Now())
	o.mu.Unlock()
	return false, s.Write(replication.AppendKeepalive(nil, sent, time.Now(), true))
}

// hear takes what the other side tells.
func (o *origin) hear(s *replication.Session) error {
	for {
		payload, err := s.ReadCopy()
		if err != nil {
			return err
		}
		if payload[0] != replication.KindStatus {
			continue
		}
		status, err := replication.ParseStatus(payload)
		if err != nil {
			return err
		}
		o.mu.Lock()
		silent := o.silent
		o.told[s.ApplicationName] = status
		stopping := o.stopping
		o.mu.Unlock()
		if stopping {
			o.set(func() {})
		}
		if status.Reply && !silent {
			if err := s.Write(replication.AppendKeepalive(nil, o.head(), time.Now(), false)); err != nil {
				return err
			}
		}
	}
}

// streams returns how many connections there are of that name.
func (o *origin) streams(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, of := range o.conns {
		if of == name {
			n++
		}
	}
	return n
}

// A testRelay runs.
type testRelay struct {
	*Relay
	addr net.Addr
	stop func() time.Duration // ends Run, and returns how long that took
	err  error                // of Run, after stop
	// restart stops it, and runs another like it at the same place.
	restart func() *testRelay
}

// testLog passes what is logged on to the test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

// runRelay runs a relay over the sources until the test ends.
func runRelay(t *testing.T, n *memNet, change func(*Config), sources ...*origin) *testRelay {
	t.Helper()
	var of []*pgconn.Config
	for _, o := range sources {
		of = append(of, n.config(t, o.l.Addr(), ""))
	}
	return runRelayFrom(t, n, change, of...)
}

func runRelayFrom(t *testing.T, n *memNet, change func(*Config), sources ...*pgconn.Config) *testRelay {
	t.Helper()
	return runRelayAt(t, n.listen(), change, sources...)
}

func runRelayAt(t *testing.T, l *memListener, change func(*Config), sources ...*pgconn.Config) *testRelay {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Name, cfg.Source, cfg.BufferSize, cfg.LagProbe = "relay", sources, MinBufferSize, -1
	cfg.Log = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if change != nil {
		change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tr := &testRelay{Relay: r, addr: l.Addr()}
	tr.restart = func() *testRelay {
		tr.stop()
		return runRelayAt(t, l.net.reopen(l), change, *r.sources.Load()...)
	}
	var running sync.WaitGroup
	running.Go(func() { tr.err = r.Run(ctx, l) })
	tr.stop = func() time.Duration {
		began := time.Now()
		cancel()
		running.Wait()
		return time.Since(began)
	}
	t.Cleanup(func() { tr.stop() })
	return tr
}

// await waits for the condition, up to a minute of the bubble's time.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for by := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		synctest.Wait()
		switch {
		case done():
			return
		case time.Now().After(by):
			t.Fatalf("in vain: %s", what)
		}
	}
}
