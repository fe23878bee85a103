package watch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/watchfake"
	"github.com/heliosdb/helios/topology"
)

// hush is a token that no text may show.
const hush = "hush-hush"

// An audience is a Listener at work on scripted companions, in a bubble.
type audience struct {
	*testing.T
	companions []*watchfake.Companion
	listener   *Listener
	log        notebook
	begun      time.Time
	odd        atomic.Pointer[string] // what answers instead of a companion
	hung       atomic.Pointer[string] // a companion that cannot be reached and does not say so

	mu   sync.Mutex
	told []string // guarded by mu; what the listener told of, with the time since the beginning
}

// A notebook keeps what is written to it. It is safe for concurrent use.
type notebook struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// listening plays f while a Listener listens to n companions. They say nothing
// but what f has them say.
func listening(t *testing.T, n int, f func(a *audience)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &audience{T: t}
		var addrs []string
		for i := range n {
			c := watchfake.New(fmt.Sprintf("c%d:7101", i+1))
			defer c.Close()
			a.companions, addrs = append(a.companions, c), append(addrs, c.Addr)
		}
		a.begun = time.Now()
		a.listener = &Listener{
			Companions: addrs,
			Connect:    a.connect,
			Token:      func(string) (string, error) { return hush, nil },
			Heard: func(b *topology.Bulletin, at time.Time) {
				a.tell(fmt.Sprintf("%v: %d.%d of %s", at.Sub(a.begun), b.Term, b.Seq, b.Companion))
			},
			Away: func() { a.tell(fmt.Sprintf("%v: away", time.Since(a.begun))) },
			Log:  slog.New(slog.NewTextHandler(&a.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.listener.Run(ctx) }()
		f(a)
		end := errors.New("the test is over")
		if cancel(end); !errors.Is(<-ended, end) {
			t.Error("Run did not return the cause of its end")
		}
		if strings.Contains(a.log.String(), hush) {
			t.Errorf("the log shows the token:\n%s", a.log.String())
		}
	})
}

func (a *audience) connect(ctx context.Context, companion string) (net.Conn, error) {
	if hung := a.hung.Load(); hung != nil && *hung == companion {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if odd := a.odd.Load(); odd != nil {
		client, server := net.Pipe()
		go answerOddly(server, *odd)
		return client, nil
	}
	for _, c := range a.companions {
		if c.Addr == companion {
			return c.Dial(ctx)
		}
	}
	return nil, errors.New("no such companion")
}

// answerOddly answers a request with a text, and whoever ends with dots goes on
// writing them.
func answerOddly(conn net.Conn, text string) {
	defer conn.Close()
	if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
		return
	}
	_, err := conn.Write([]byte(text))
	for err == nil && strings.HasSuffix(text, "...") {
		time.Sleep(100 * time.Millisecond)
		_, err = conn.Write([]byte("."))
	}
}

func (a *audience) tell(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = append(a.told, what)
}

// heard returns what was told since it was asked last, once d has passed.
func (a *audience) heard(d time.Duration) []string {
	time.Sleep(d)
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	told := a.told
	a.told = nil
	return told
}

// want checks what was told once d has passed.
func (a *audience) want(d time.Duration, want ...string) {
	a.Helper()
	if got := a.heard(d); !slices.Equal(got, want) {
		a.Errorf("told\n%s\nwant\n%s\nlog:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), a.log.String())
	}
}

// listened returns the companion whose stream is open, and those whose is not.
func (a *audience) listened() (one *watchfake.Companion, others []*watchfake.Companion) {
	a.Helper()
	time.Sleep(time.Millisecond)
	synctest.Wait()
	for _, c := range a.companions {
		switch {
		case c.Streams() == 0:
			others = append(others, c)
		case one != nil:
			a.Fatalf("both %s and %s are listened to", one.Addr, c.Addr)
		default:
			one = c
		}
	}
	if one == nil {
		a.Fatalf("nobody is listened to; log:\n%s", a.log.String())
	}
	return one, others
}

func at(term, seq uint64) topology.Bulletin {
	return topology.Bulletin{Term: term, Seq: seq, Nodes: []topology.Reported{{Name: "n1"}}}
}

func TestABulletinIsToldWhenItIsSaid(t *testing.T) {
	listening(t, 1, func(a *audience) {
		c := a.companions[0]
		c.Say(at(1, 1))
		a.want(400*time.Millisecond, "0s: 1.1 of c1:7101")
		c.Say(at(1, 2))
		a.want(0, "400ms: 1.2 of c1:7101")
		a.want(200*time.Millisecond, "500ms: 1.2 of c1:7101") // a heartbeat
		asked := c.Asked()
		if got := asked[0].URL.RequestURI(); len(asked) != 1 || got != "/v1/watch?heartbeat=500ms&positions=100ms" {
			a.Errorf("asked %d times, for %s", len(asked), got)
		}
		if got := asked[0].Header.Get("Authorization"); got != "Bearer "+hush {
			a.Errorf("Authorization = %q, want the token", got)
		}
		st := a.listener.Status()
		if st.Companion != c.Addr || st.Name != c.Addr || st.Away || st.Err != nil || st.Bulletins != 3 || time.Since(st.HeardAt) != 100*time.Millisecond {
			a.Errorf("Status() = %+v", st)
		}
	})
}

func TestWhenAStreamEndsTheNextCompanionIsHeardAtOnce(t *testing.T) {
	listening(t, 3, func(a *audience) {
		for _, c := range a.companions {
			c.Say(at(1, 1))
		}
		first, _ := a.listened()
		a.heard(700 * time.Millisecond)
		first.Refuse(true)
		second, _ := a.listened()
		a.want(0, "701ms: 1.1 of "+second.Addr)
		second.Refuse(true)
		third, _ := a.listened()
		a.want(0, "702ms: 1.1 of "+third.Addr)
		if third == first || second == first {
			a.Errorf("listened to %s, %s and %s, want all three", first.Addr, second.Addr, third.Addr)
		}
	})
}

func TestASilentCompanionIsLeftForTheNext(t *testing.T) {
	for name, silent := range map[string]func(c *watchfake.Companion){
		"nothing comes":     func(c *watchfake.Companion) { c.Mute(true) },
		"only older news":   func(c *watchfake.Companion) { c.Say(at(1, 4)) },
		"of an older term":  func(c *watchfake.Companion) { c.Say(at(0, 9)) },
		"of an older epoch": func(c *watchfake.Companion) { c.Say(topology.Bulletin{Term: 2, Seq: 9, Epoch: 2}) },
		"what it heard long ago": func(c *watchfake.Companion) {
			b := at(1, 5)
			b.Epoch = 3
			b.Nodes[0].Age = time.Minute
			c.Say(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			listening(t, 2, func(a *audience) {
				b := at(1, 5)
				b.Epoch = 3
				for _, c := range a.companions {
					c.Say(b)
				}
				first, others := a.listened()
				a.want(100*time.Millisecond, "0s: 1.5 of "+first.Addr)
				silent(first)
				a.want(1149*time.Millisecond - time.Millisecond) // 2.5 heartbeats after it was heard last
				a.want(2*time.Millisecond, "1.25s: 1.5 of "+others[0].Addr)
				if err := a.listener.Status().Err; err != nil {
					a.Errorf("Status().Err = %v while a stream is open", err)
				}
			})
		})
	}
}

func TestAnOlderBulletinIsNeverTold(t *testing.T) {
	listening(t, 2, func(a *audience) {
		for _, c := range a.companions {
			c.Say(at(3, 7))
		}
		first, others := a.listened()
		second := others[0]
		second.Say(at(3, 6))
		first.Refuse(true)
		a.want(300*time.Millisecond, "0s: 3.7 of "+first.Addr)
		second.Say(at(2, 99))
		a.want(300 * time.Millisecond)
		second.Say(at(3, 8))
		second.Say(at(4, 1))
		a.want(0, "601ms: 3.8 of "+second.Addr, "601ms: 4.1 of "+second.Addr)
		if got := a.listener.Status().Stale; got != 3 { // and one heartbeat
			a.Errorf("Stale = %d, want 3", got)
		}
	})
}

func TestThatAllAreAwayIsToldOnce(t *testing.T) {
	listening(t, 3, func(a *audience) {
		for _, c := range a.companions {
			c.Say(at(1, 1))
		}
		first, others := a.listened()
		a.want(99*time.Millisecond, "0s: 1.1 of "+first.Addr)
		for _, c := range append(others, first) {
			c.Refuse(true)
		}
		a.want(time.Minute, "2s: away") // 4 heartbeats after one was heard last
		if st := a.listener.Status(); !st.Away || st.Companion != "" || st.Err == nil {
			a.Errorf("Status() = %+v, want away with an error", st)
		}
		if n := strings.Count(a.log.String(), "level=WARN"); n != 2 {
			a.Errorf("%d warnings in a minute, want one that the stream ended and one that all are away:\n%s", n, a.log.String())
		}
		if n := strings.Count(a.log.String(), "is not heard"); n < 3*20 || n > 3*70 {
			a.Errorf("%d attempts in a minute, want a round each second or two", n)
		}
		a.companions[1].Refuse(false)
		a.companions[1].Say(at(1, 2))
		told := a.heard(4 * time.Second)
		if len(told) == 0 || !strings.HasSuffix(told[0], "1.2 of c2:7101") {
			a.Errorf("told %v, want c2", told)
		}
		a.companions[1].Refuse(true)
		if told := a.heard(4 * time.Second); len(told) != 1 || !strings.HasSuffix(told[0], "away") {
			a.Errorf("told %v, want that they are away", told)
		}
	})
}

// Whatever answers in a companion's stead, the next one is asked.
func TestGarbageIsSurvived(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	for name, tt := range map[string]struct{ answer, want string }{
		"not HTTP":           {"EFATAL\x00SHint: " + hush + "\r\n\r\n", "odd answer: it is not HTTP"},
		"nothing":            {"", "the stream has ended"},
		"half a header":      {"HTTP/1.1 200 OK\r\nX: ", "the stream has ended"},
		"endless header":     {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxHead), "odd answer: its header is longer than 65536 bytes"},
		"bad chunks":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + hush + "\r\n", "odd answer: it is not HTTP"},
		"unauthorized":       {"HTTP/1.1 401 " + hush + "\r\n\r\n" + hush, "answered 401 Unauthorized"},
		"somewhere else":     {"HTTP/1.1 302 Found\r\nLocation: http://c2:7101/\r\n\r\n", "answered 302 Found"},
		"no JSON":            {ok + "<html>" + hush + "\n", "odd answer: a line is no bulletin"},
		"another JSON":       {ok + `{"term":"` + hush + `"}` + "\n", "odd answer: a line is no bulletin"},
		"half a line":        {ok + `{"term":9,"seq":1`, "the stream has ended"},
		"endless line":       {ok + strings.Repeat(" ", maxLine+1), "odd answer: a line is longer than 4194304 bytes"},
		"empty lines":        {ok + "\n\n\n", "the stream has ended"},
		"a dribble":          {ok + "...", "nothing new for 1.25s"},
		"a dribbling header": {"HTTP/1.1 200 OK\r\nX: ...", "i/o timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			listening(t, 1, func(a *audience) {
				a.companions[0].Refuse(true)
				synctest.Wait()
				a.listener.log().Info("from here on")
				a.odd.Store(&tt.answer)
				for err := error(nil); err == nil || !strings.Contains(err.Error(), tt.want); err = a.listener.Status().Err {
					if a.heard(time.Second); time.Since(a.begun) > 20*time.Second {
						a.Fatalf("Status().Err = %v, want %s", err, tt.want)
					}
				}
				a.odd.Store(nil)
				a.companions[0].Refuse(false)
				a.companions[0].Say(at(1, 1))
				if told := a.heard(4 * time.Second); len(told) == 0 {
					a.Error("the companion that is in order was not heard")
				}
			})
		})
	}
}

func TestWithoutItsTokenACompanionIsNotAsked(t *testing.T) {
	listening(t, 1, func(a *audience) {
		a.companions[0].Cut()
		missing := errors.New("no such file")
		a.listener.Token = func(string) (string, error) { return "", missing }
		a.companions[0].Say(at(1, 1))
		a.heard(time.Second)
		if st := a.listener.Status(); !errors.Is(st.Err, missing) || st.Bulletins != 0 || len(a.companions[0].Asked()) > 1 {
			a.Errorf("Status() = %+v after %d questions", st, len(a.companions[0].Asked()))
		}
	})
}

func TestAStatusThatIsNoStreamIsToldWithoutItsText(t *testing.T) {
	listening(t, 1, func(a *audience) {
		a.companions[0].Answer(http.StatusUnauthorized)
		a.companions[0].Cut()
		a.heard(5 * time.Second)
		if got := fmt.Sprint(a.listener.Status().Err); got != "answered 401 Unauthorized" {
			a.Errorf("Status().Err = %s", got)
		}
	})
}

func TestAHungCompanionDelaysNobodyForLong(t *testing.T) {
	listening(t, 2, func(a *audience) {
		for _, c := range a.companions {
			c.Say(at(1, 1))
		}
		first, others := a.listened()
		a.heard(599 * time.Millisecond)
		a.hung.Store(&others[0].Addr) // connections to it never come to be
		first.Refuse(true)
		first.Refuse(false)
		first.Say(at(1, 2))
		a.want(1249 * time.Millisecond)
		a.want(time.Millisecond, "1.85s: 1.2 of "+first.Addr)
	})
}
