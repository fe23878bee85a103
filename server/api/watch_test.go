package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/internal/memnet"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
)

// serve serves h at l until the test ends.
func serve(tb testing.TB, h *api.Handler, l net.Listener, configure ...func(*http.Server)) *http.Server {
	tb.Helper()
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	for _, c := range configure {
		c(srv)
	}
	srv.RegisterOnShutdown(h.Close)
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("Serve: %v", err)
		}
	})
	tb.Cleanup(func() {
		srv.Close()
		running.Wait()
	})
	return srv
}

const addr = "127.0.0.1:7101"

// A stream is what one listener hears.
type stream struct {
	resp  *http.Response
	lines *bufio.Reader
}

// listen opens a stream of the companion at addr.
func listen(tb testing.TB, dial func(context.Context, string, string) (net.Conn, error), addr, query string) *stream {
	tb.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/v1/watch" + query)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { resp.Body.Close() })
	return &stream{resp: resp, lines: bufio.NewReader(resp.Body)}
}

// read returns the next line.
func (s *stream) read() (*topology.Bulletin, error) {
	line, err := s.lines.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	b := new(topology.Bulletin)
	return b, json.Unmarshal(line, b)
}

// next returns the next line, which must come.
func (s *stream) next(tb testing.TB) *topology.Bulletin {
	tb.Helper()
	b, err := s.read()
	if err != nil {
		tb.Fatalf("stream: %v", err)
	}
	return b
}

// moved is a change of positions only.
func moved(b *topology.Bulletin) {
	for i := range b.Nodes {
		b.Nodes[i].ReplayLSN += 0x100
		b.Nodes[i].Behind++
		b.Nodes[i].Lag += time.Millisecond
	}
}

// held is a change that matters.
func held(b *topology.Bulletin) { b.Hold = !b.Hold }

func TestListenerHearsWhatMattersAtOnceAndTheRestAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, mem := apifake.New("n1"), memnet.New()
		serve(t, api.New(api.Config{Cluster: c}), mem.Listen(addr))
		s := listen(t, mem.DialContext, addr, "?positions=200ms&heartbeat=1s")
		if kind := s.resp.Header.Get("Content-Type"); kind != "application/x-ndjson" {
			t.Errorf("Content-Type %q", kind)
		}
		begun := time.Now()
		expect := func(what string, seq uint64, at time.Duration) *topology.Bulletin {
			t.Helper()
			b := s.next(t)
			if ago := time.Since(begun); b.Seq != seq || ago != at {
				t.Errorf("%s: bulletin %d after %v, want %d after %v", what, b.Seq, ago, seq, at)
			}
			return b
		}
		first := expect("the newest at once", 100, 0)

		for range 5 {
			time.Sleep(20 * time.Millisecond)
			c.Publish(moved)
		}
		expect("the newest of five moves, at the pace of positions", 105, 200*time.Millisecond)

		time.Sleep(10 * time.Millisecond)
		c.Publish(moved)
		time.Sleep(10 * time.Millisecond)
		c.Publish(held)
		expect("what matters, at once", 107, 220*time.Millisecond)
		c.Publish(held)
		expect("and once more", 108, 220*time.Millisecond)

		repeated := expect("a repeat, after the heartbeat", 108, 1220*time.Millisecond)
		if got, want := repeated.Nodes[0].Age, first.Nodes[0].Age+time.Second; got != want {
			t.Errorf("the repeat says that n1 was heard %v ago, want %v", got, want)
		}
		expect("another repeat", 108, 2220*time.Millisecond)

		time.Sleep(300 * time.Millisecond)
		c.Publish(moved)
		expect("a move after a silence, at once", 109, 2520*time.Millisecond)
	})
}

func TestListenerGetsLinesAsDescribed(t *testing.T) {
	d := described(t)
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		serve(t, api.New(api.Config{Cluster: apifake.New("n1")}), mem.Listen(addr))
		s := listen(t, mem.DialContext, addr, "")
		line, err := s.lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range d.CheckAnswer(http.MethodGet, "/v1/watch", s.resp, line) {
			t.Error(fault)
		}
	})
}

func TestListenerWaitsForTheFirstBulletin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, mem := apifake.New("n1"), memnet.New()
		first := apifake.Sample("n1").Bulletin
		c.Change(func(f *apifake.Facts) { f.Bulletin = nil })
		serve(t, api.New(api.Config{Cluster: c}), mem.Listen(addr))
		s := listen(t, mem.DialContext, addr, "")
		begun := time.Now()
		time.AfterFunc(time.Minute, func() { c.Change(func(f *apifake.Facts) { f.Bulletin = first }) })
		if b := s.next(t); b.Seq != first.Seq || time.Since(begun) != time.Minute {
			t.Errorf("bulletin %d after %v, want %d after 1m", b.Seq, time.Since(begun), first.Seq)
		}
	})
}

// Nothing is buffered between the two but what net/http holds.
func TestSlowListenerGetsTheNewestAndNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, mem := apifake.New("n1"), memnet.New()
		h := api.New(api.Config{Cluster: c})
		serve(t, h, mem.Listen(addr))
		conn, err := mem.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/watch HTTP/1.1\r\nHost: n1\r\n\r\n")
		for range 1000 {
			time.Sleep(time.Millisecond)
			c.Publish(held)
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &stream{resp: resp, lines: bufio.NewReaderSize(resp.Body, 16)}
		for lines := 1; ; lines++ {
			if b := s.next(t); b.Seq == 1100 {
				break
			}
			if lines > 1 {
				t.Fatalf("%d lines before the newest; want at most the one that was being written", lines)
			}
		}
	})
}

func TestListenerThatDoesNotReadIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		h := api.New(api.Config{Cluster: apifake.New("n1"), WriteTimeout: 5 * time.Second})
		serve(t, h, mem.Listen(addr))
		conn, err := mem.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/watch HTTP/1.1\r\nHost: n1\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if n := h.Listeners(); n != 1 {
			t.Errorf("after 4s %d listen, want 1", n)
		}
		time.Sleep(2 * time.Second)
		if n := h.Listeners(); n != 0 {
			t.Errorf("after 6s %d listen, want none", n)
		}
	})
}

// The server's own deadline is for answers that end.
func TestStreamOutlivesTheServersWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		h := api.New(api.Config{Cluster: apifake.New("n1")})
		serve(t, h, mem.Listen(addr), func(s *http.Server) { s.WriteTimeout = 3 * time.Second })
		s := listen(t, mem.DialContext, addr, "?heartbeat=2s")
		for range 10 {
			s.next(t)
		}
	})
}

// With HTTP/2 a deadline that passes ends the stream, even if nothing is being written.
func TestStreamIsSlowerThanItsWriteTimeoutOverHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		h := api.New(api.Config{Cluster: apifake.New("n1"), WriteTimeout: time.Second})
		var http2 http.Protocols
		http2.SetUnencryptedHTTP2(true)
		serve(t, h, mem.Listen(addr), func(s *http.Server) { s.Protocols = &http2 })
		client := &http.Client{Transport: &http.Transport{DialContext: mem.DialContext, Protocols: &http2}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://" + addr + "/v1/watch?heartbeat=3s")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		s := &stream{resp: resp, lines: bufio.NewReader(resp.Body)}
		for range 5 {
			s.next(t)
		}
		if resp.ProtoMajor != 2 {
			t.Errorf("this was %s", resp.Proto)
		}
	})
}

func TestStreamsEndWhenTheCompanionShutsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		h := api.New(api.Config{Cluster: apifake.New("n1")})
		srv := serve(t, h, mem.Listen(addr))
		s := listen(t, mem.DialContext, addr, "")
		s.next(t)
		ended := make(chan error, 1)
		go func() {
			_, err := s.lines.ReadByte()
			ended <- err
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; err != io.EOF { //nolint:errorlint // a stream that breaks off is io.ErrUnexpectedEOF
			t.Errorf("the stream ended with %v, want io.EOF", err)
		}
		resp := ask(h, http.MethodGet, "/v1/watch", "")
		if told := read[api.Error](t, resp); resp.StatusCode != http.StatusServiceUnavailable || told.Code != api.CodeClosing {
			t.Errorf("afterwards: %d %+v, want 503 and code %s", resp.StatusCode, told, api.CodeClosing)
		}
	})
}

func TestListenersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		h := api.New(api.Config{Cluster: apifake.New("n1"), MaxListeners: 2})
		serve(t, h, mem.Listen(addr))
		first := listen(t, mem.DialContext, addr, "")
		listen(t, mem.DialContext, addr, "").next(t)
		first.next(t)
		resp := ask(h, http.MethodGet, "/v1/watch", "")
		if told := read[api.Error](t, resp); resp.StatusCode != http.StatusServiceUnavailable || told.Code != api.CodeBusy {
			t.Errorf("the third: %d %+v, want 503 and code %s", resp.StatusCode, told, api.CodeBusy)
		}
		first.resp.Body.Close()
		synctest.Wait()
		if n := h.Listeners(); n != 1 {
			t.Errorf("after one has left %d listen, want 1", n)
		}
		listen(t, mem.DialContext, addr, "").next(t)
	})
}

func TestBulletinIsEncodedOnceForAll(t *testing.T) {
	var e api.Encoder
	b, now := apifake.Sample("n1").Bulletin, time.Now()
	first := api.Encode(&e, b, now)
	if allocs := testing.AllocsPerRun(100, func() {
		if api.Encode(&e, b, now) != first {
			t.Fatal("it was encoded again")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations for the next listener, want 0", allocs)
	}
	if api.Encode(&e, b, now.Add(time.Second)) == first {
		t.Error("a second later the ages in the line are the same")
	}
}

// In fake time what takes no time takes exactly none, however many listen.
func TestChangeReachesAHundredListenersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, mem := apifake.New("n1"), memnet.New()
		serve(t, api.New(api.Config{Cluster: c}), mem.Listen(addr))
		var streams []*stream
		for range 100 {
			s := listen(t, mem.DialContext, addr, "")
			s.next(t)
			streams = append(streams, s)
		}
		time.Sleep(time.Second / 2)
		begun := time.Now()
		c.Publish(held)
		for i, s := range streams {
			if b := s.next(t); !b.Hold || time.Since(begun) != 0 {
				t.Fatalf("listener %d: hold %v after %v, want true at once", i, b.Hold, time.Since(begun))
			}
		}
	})
}

// told publishes a change and returns how long it takes until every listener has read it.
func told(tb testing.TB, c *apifake.Cluster, streams []*stream) time.Duration {
	tb.Helper()
	var all sync.WaitGroup
	begun := time.Now()
	c.Publish(held)
	for _, s := range streams {
		all.Go(func() {
			if _, err := s.read(); err != nil {
				tb.Errorf("stream: %v", err)
			}
		})
	}
	all.Wait()
	return time.Since(begun)
}

// overTCP returns listeners with connections of their own to a companion.
func overTCP(tb testing.TB, c *apifake.Cluster, listeners int) []*stream {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	serve(tb, api.New(api.Config{Cluster: c}), l)
	var streams []*stream
	for range listeners {
		s := listen(tb, new(net.Dialer).DialContext, l.Addr().String(), "?heartbeat=1h")
		s.next(tb)
		streams = append(streams, s)
	}
	return streams
}

// 50 ms are promised, on a machine that has nothing else to do; see the benchmark. This
// one may have.
func TestChangeReachesAHundredListenersOverTCP(t *testing.T) {
	c := apifake.New("n1")
	streams := overTCP(t, c, 100)
	for range 5 {
		if took := told(t, c, streams); took > 5*time.Second {
			t.Errorf("the last of 100 heard after %v", took)
		}
	}
}

func BenchmarkChange(b *testing.B) {
	for _, listeners := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("listeners=%d", listeners), func(b *testing.B) {
			c := apifake.New("n1")
			streams := overTCP(b, c, listeners)
			var worst time.Duration
			for b.Loop() {
				worst = max(worst, told(b, c, streams))
			}
			b.ReportMetric(float64(worst)/1e6, "worst-ms")
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, nodes := range []int{3, 100} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			bulletin := apifake.Sample("n1").Bulletin
			for len(bulletin.Nodes) < nodes {
				n := bulletin.Nodes[0]
				n.Name = strings.Repeat("n", 3) + fmt.Sprint(len(bulletin.Nodes))
				bulletin.Nodes = append(bulletin.Nodes, n)
			}
			now := time.Now()
			for b.Loop() {
				var e api.Encoder
				api.Encode(&e, bulletin, now)
			}
		})
	}
}
