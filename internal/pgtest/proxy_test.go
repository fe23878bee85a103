package pgtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echoServer answers every byte with itself until the test ends, and counts
// what it was sent.
type echoServer struct {
	addr string

	mu   sync.Mutex
	seen bytes.Buffer // guarded by mu
	got  *sync.Cond   // signalled when seen grows
}

func startEcho(t *testing.T) *echoServer {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	OK(t, err)
	e := &echoServer{addr: l.Addr().String()}
	e.got = sync.NewCond(&e.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { e.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return e
}

func (e *echoServer) serve(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		e.mu.Lock()
		e.seen.Write(buf[:n])
		e.got.Broadcast()
		e.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

// await returns when the server was sent all of want.
func (e *echoServer) await(want string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !strings.Contains(e.seen.String(), want) {
		e.got.Wait()
	}
}

// text returns what the server was sent.
func (e *echoServer) text() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen.String()
}

// startProxied returns a proxy in front of an echo server and a connection
// through it.
func startProxied(t *testing.T) (*Proxy, *echoServer, *net.TCPConn) {
	t.Helper()
	e := startEcho(t)
	p, err := StartProxy(e.addr)
	OK(t, err)
	t.Cleanup(func() { OK(t, p.Close()) })
	return p, e, dialProxy(t, p)
}

func dialProxy(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
	OK(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	OK(t, err)
}

func expect(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	OK(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// expectSilence passes if nothing arrives for a while.
func expectSilence(t *testing.T, conn net.Conn) {
	t.Helper()
	OK(t, conn.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	n, err := conn.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); n != 0 || !ok || !timeout.Timeout() {
		t.Fatalf("Read = %d, %v; want silence", n, err)
	}
}

// expectEnd passes if the connection ends and nothing came before.
func expectEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	OK(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	n, err := conn.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("Read = %d, %v; want the end of the connection", n, err)
	}
}

func TestProxyForwardsAndCounts(t *testing.T) {
	p, _, conn := startProxied(t)
	send(t, conn, "hello")
	expect(t, conn, "hello")
	OK(t, conn.CloseWrite())
	expectEnd(t, conn)
	want := ProxyStats{Accepted: 1, ToServer: 5, ToClient: 5}
	for p.Stats().Open > 0 {
		runtime.Gosched()
	}
	if got := p.Stats(); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
}

func TestDelayHoldsEachWay(t *testing.T) {
	p, _, conn := startProxied(t)
	p.Delay(20 * time.Millisecond)
	begin := time.Now()
	send(t, conn, "a")
	expect(t, conn, "a")
	if took := time.Since(begin); took < 40*time.Millisecond {
		t.Errorf("round trip took %v, want at least 40ms", took)
	}
	p.Delay(time.Hour)
	send(t, conn, "b")
	expectSilence(t, conn)
	OK(t, p.Heal())
	expect(t, conn, "b")
}

func TestDelayKeepsThroughputAndOrder(t *testing.T) {
	p, _, conn := startProxied(t)
	p.Delay(10 * time.Millisecond)
	text := strings.Repeat("0123456789", 100_000)
	var sending sync.WaitGroup
	sending.Go(func() { io.WriteString(conn, text) })
	expect(t, conn, text)
	sending.Wait()
}

func TestRateHoldsForAllThatIsSent(t *testing.T) {
	p, _, conn := startProxied(t)
	const size, rate = 1_000_000, 5e6
	p.Rate(rate)
	text := strings.Repeat("0123456789", size/10)
	begun := time.Now()
	var sending sync.WaitGroup
	sending.Go(func() { io.WriteString(conn, text) })
	expect(t, conn, text)
	sending.Wait()
	const least = size / rate * float64(time.Second)
	if took := time.Since(begun); took < time.Duration(least)-paceSlack {
		t.Errorf("%d bytes there and back took %v, want %v at least", size, took, time.Duration(least))
	}
	p.Rate(0)
	send(t, conn, "on")
	expect(t, conn, "on")
}

func TestDroppedRepliesLeaveTheServerServed(t *testing.T) {
	p, e, conn := startProxied(t)
	p.DropReplies()
	send(t, conn, "write")
	e.await("write")
	expectSilence(t, conn)
	p.Cut()
	expectEnd(t, conn)
}

func TestCutAfterEndsOneConnectionInTheMiddleOfAReply(t *testing.T) {
	p, e, conn := startProxied(t)
	p.CutAfter(3)
	send(t, conn, "hello")
	e.await("hello")
	expect(t, conn, "hel")
	expectEnd(t, conn)

	next := dialProxy(t, p)
	send(t, next, "again")
	expect(t, next, "again")

	p.CutAfter(0)
	send(t, next, "lost")
	e.await("lost")
	expectEnd(t, next)
}

func TestCutRequestAfterEndsOneConnectionInTheMiddleOfARequest(t *testing.T) {
	p, e, conn := startProxied(t)
	p.CutRequestAfter(3)
	send(t, conn, "hello")
	e.await("hel")
	expectClosedSoon(t, conn)

	next := dialProxy(t, p)
	send(t, next, "again")
	expect(t, next, "again")
	if got := e.text(); got != "helagain" {
		t.Errorf("the server was sent %q, want helagain", got)
	}
}

func TestResetEndsConnectionsWithoutAGoodbye(t *testing.T) {
	p, _, conn := startProxied(t)
	send(t, conn, "a")
	expect(t, conn, "a")
	p.Reset()
	OK(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %d, %v; want %v", n, err, syscall.ECONNRESET)
	}
	next := dialProxy(t, p)
	send(t, next, "again")
	expect(t, next, "again")
}

func TestBlackHoleKeepsBytesUntilItIsHealed(t *testing.T) {
	p, _, conn := startProxied(t)
	send(t, conn, "a")
	expect(t, conn, "a")
	p.BlackHole()
	fresh := dialProxy(t, p)
	send(t, fresh, "x")
	send(t, conn, "b")
	expectSilence(t, conn)
	expectSilence(t, fresh)
	OK(t, p.Heal())
	expect(t, conn, "b")
	expect(t, fresh, "x")
}

func TestRefusedConnectionsAreReset(t *testing.T) {
	p, _, conn := startProxied(t)
	send(t, conn, "a")
	expect(t, conn, "a")
	p.Refuse()
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial = %v, want %v", err, syscall.ECONNREFUSED)
	}
	send(t, conn, "b")
	expect(t, conn, "b")
	OK(t, p.Heal())
	again := dialProxy(t, p)
	send(t, again, "c")
	expect(t, again, "c")
}

func TestWithoutServerConnectionsEnd(t *testing.T) {
	port, err := TakePort(t.Context())
	OK(t, err)
	p, err := StartProxy(loopback(port))
	OK(t, err)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.Addr())
	switch { // the reset may come before the handshake is seen to be complete
	case err == nil:
		expectEnd(t, conn)
		OK(t, conn.Close())
	case !errors.Is(err, syscall.ECONNRESET):
		t.Errorf("Dial = %v, want %v", err, syscall.ECONNRESET)
	}
	OK(t, p.Close())
	GivePort(port)
}

func TestCloseEndsEveryGoroutineWhateverTheFault(t *testing.T) {
	for name, fault := range map[string]func(*Proxy){
		"none":         func(*Proxy) {},
		"delay":        func(p *Proxy) { p.Delay(time.Hour) },
		"drop replies": (*Proxy).DropReplies,
		"black hole":   (*Proxy).BlackHole,
		"refuse":       (*Proxy).Refuse,
	} {
		t.Run(name, func(t *testing.T) {
			e := startEcho(t)
			before := runtime.NumGoroutine()
			p, err := StartProxy(e.addr)
			OK(t, err)
			conn := dialProxy(t, p)
			send(t, conn, "a")
			expect(t, conn, "a")
			fault(p)
			send(t, conn, "b")
			OK(t, p.Close())
			expectClosedSoon(t, conn)
			awaitGoroutines(t, before)
		})
	}
}

// expectClosedSoon reads whatever had arrived before the end.
func expectClosedSoon(t *testing.T, conn net.Conn) {
	t.Helper()
	OK(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connection is open after Close: %v", err)
	}
}

// awaitGoroutines passes when no more than want goroutines are left. Those of
// the echo server end a moment after their connection.
func awaitGoroutines(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > want; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 64<<10)
			t.Fatalf("%d goroutines, want %d:\n%s", runtime.NumGoroutine(), want, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
