package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/internal/memnet"
	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
)

const token = "t0ken-of-operators"

var addrs = []string{"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"}

// A world is companions in memory and a client of all of them.
type world struct {
	mem      *memnet.Net
	servers  []*http.Server
	clusters []*apifake.Cluster
	client   *client.Client
}

// newWorld starts n companions of the sample.
func newWorld(t *testing.T, n int, o client.Options) *world {
	t.Helper()
	w := &world{mem: memnet.New()}
	for i := range n {
		c := apifake.New(fmt.Sprintf("n%d", i+1))
		h := api.New(api.Config{Cluster: c, Token: token})
		srv := w.serve(t, addrs[i], h)
		srv.RegisterOnShutdown(h.Close)
		w.clusters, w.servers = append(w.clusters, c), append(w.servers, srv)
	}
	w.connect(t, o, addrs...)
	return w
}

// connect makes the client one of the companions at addrs.
func (w *world) connect(t *testing.T, o client.Options, addrs ...string) {
	t.Helper()
	o.Dial = w.mem.DialContext
	if o.Token == "" {
		o.Token = token
	}
	c, err := client.New(addrs, o)
	if err != nil {
		t.Fatal(err)
	}
	w.client = c
	t.Cleanup(c.Close)
}

// serve has h answer at addr.
func (w *world) serve(t *testing.T, addr string, h http.Handler) *http.Server {
	t.Helper()
	srv := &http.Server{Handler: h}
	l := w.mem.Listen(addr)
	var running sync.WaitGroup
	running.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		running.Wait()
	})
	return srv
}

// orders returns what all companions were ordered, without who gave the orders.
func (w *world) orders() []api.Order {
	var all []api.Order
	for _, c := range w.clusters {
		for _, o := range c.Orders() {
			o.By = ""
			all = append(all, o)
		}
	}
	return all
}

func TestEveryQuestionIsAnswered(t *testing.T) {
	w := newWorld(t, 1, client.Options{})
	sample := apifake.Sample("n1")
	for name, ask := range map[string]func(context.Context, *client.Client) (got, want any, err error){
		"cluster": func(ctx context.Context, c *client.Client) (got, want any, err error) {
			o, err := c.Cluster(ctx)
			if err != nil {
				return nil, nil, err
			}
			return o.Bulletin, sample.Bulletin, nil
		},
		"lag": func(ctx context.Context, c *client.Client) (got, want any, err error) {
			raw, err := c.Lag(ctx)
			if err != nil {
				return nil, nil, err
			}
			var report stats.Report
			err = json.Unmarshal(raw, &report)
			return report.Replicas, sample.Lag.(stats.Report).Replicas, err
		},
		"history": func(ctx context.Context, c *client.Client) (got, want any, err error) {
			h, err := c.History(ctx, 1)
			if err != nil {
				return nil, nil, err
			}
			return h.Transitions[0].Sealed, sample.State.History[1].Sealed, nil
		},
		"wal": func(ctx context.Context, c *client.Client) (got, want any, err error) {
			s, err := c.WAL(ctx)
			return s, sample.WAL, err
		},
		"settings": func(ctx context.Context, c *client.Client) (got, want any, err error) {
			s, err := c.Settings(ctx)
			return s, new(api.SettingsOf(sample.State.Settings)), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, want, err := ask(t.Context(), w.client)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("= %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestEveryOrderIsGiven(t *testing.T) {
	failover := api.Failover{To: "n1", Force: true, AcceptLoss: "n2"}
	for name, tt := range map[string]struct {
		give func(context.Context, *client.Client) (*api.Done, error)
		want api.Order
	}{
		"switchover": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Switchover(ctx, "n1") },
			api.Order{Switchover: &api.Switchover{To: "n1"}},
		},
		"failover": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Failover(ctx, failover) },
			api.Order{Failover: &failover},
		},
		"promote": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Promote(ctx, "n1") },
			api.Order{Promote: "n1"},
		},
		"pause": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Pause(ctx) },
			api.Order{Pause: new(true)},
		},
		"resume": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Resume(ctx) },
			api.Order{Pause: new(false)},
		},
		"maintenance": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Maintenance(ctx, "n3", true) },
			api.Order{Maintenance: &api.Maintenance{Node: "n3", On: true}},
		},
		"settings": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) {
				return c.ChangeSettings(ctx, api.SettingsPatch{Lease: new(api.Duration(3 * time.Second))})
			},
			api.Order{Settings: &api.SettingsPatch{Lease: new(api.Duration(3 * time.Second))}},
		},
		"reinit": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Reinit(ctx, "n3") },
			api.Order{Reinit: "n3"},
		},
		"remove": {
			func(ctx context.Context, c *client.Client) (*api.Done, error) { return c.Remove(ctx, "n3") },
			api.Order{Remove: "n3"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, client.Options{})
			done, err := tt.give(t.Context(), w.client)
			if err != nil || done.Order != name || done.Epoch != 2 {
				t.Errorf("= %+v, %v, want %s in epoch 2", done, err, name)
			}
			if got := w.orders(); len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
				t.Errorf("orders %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRefusalHasItsCodeAndHint(t *testing.T) {
	w := newWorld(t, 2, client.Options{})
	_, err := w.client.Promote(t.Context(), "n9")
	told, ok := errors.AsType[*api.Error](err)
	if !ok || told.Code != api.CodeNoSuchNode || told.Hint == "" || !errors.Is(err, &api.Error{Code: api.CodeNoSuchNode}) {
		t.Errorf("Promote(n9) = %#v, want code %s and a hint", err, api.CodeNoSuchNode)
	}
	w.connect(t, client.Options{Token: "another"}, addrs[:2]...)
	if _, err := w.client.Pause(t.Context()); !errors.Is(err, &api.Error{Code: api.CodeUnauthorized}) {
		t.Errorf("Pause with another token = %v, want code %s", err, api.CodeUnauthorized)
	} else if strings.Contains(err.Error(), "another") {
		t.Errorf("the token is in the error: %v", err)
	}
	if got := w.orders(); len(got) != 0 {
		t.Errorf("orders %+v, want none", got)
	}
}

func TestNextCompanionIsAskedWhenOneIsAway(t *testing.T) {
	noLeader := func(f *apifake.Facts) {
		f.Do = func(context.Context, api.Order) error {
			return &api.Error{Code: api.CodeNoLeader, Message: "nobody leads"}
		}
	}
	pause := func(w *world) error { _, err := w.client.Pause(context.Background()); return err }
	cluster := func(w *world) error { _, err := w.client.Cluster(context.Background()); return err }
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // an order was heard
		<-r.Context().Done()
	})
	hangUp := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	// awake is a companion that says how it is, and does with orders as it is told.
	awake := func(order http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				order.ServeHTTP(w, r)
			}
		})
	}
	html := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	broken := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusBadGateway) })
	for name, tt := range map[string]struct {
		first  http.Handler // instead of the first companion; nil: nobody is there
		noLead bool         // the first is a companion, and nobody leads
		ask    func(*world) error
		want   error // nil: answered by the second
		orders int
	}{
		"question, nobody there":               {nil, false, cluster, nil, 0},
		"question, no answer":                  {hang, false, cluster, nil, 0},
		"question, the connection ends":        {hangUp, false, cluster, nil, 0},
		"question, somebody else there":        {html, false, cluster, nil, 0},
		"order, nobody there":                  {nil, false, pause, nil, 1},
		"order, nobody leads":                  {nil, true, pause, nil, 2},
		"order, a companion that is frozen":    {hang, false, pause, nil, 1},
		"order that may have been heard":       {awake(hang), false, pause, client.ErrUnanswered, 0},
		"order, the connection ends":           {awake(hangUp), false, pause, client.ErrUnanswered, 0},
		"order, an answer that cannot be read": {html, false, pause, client.ErrUnanswered, 0},
		"order, a proxy without a companion":   {broken, false, pause, &api.Error{Code: api.CodeInternal}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, client.Options{})
				switch {
				case tt.noLead:
					w.clusters[0].Change(noLeader)
				case tt.first != nil:
					w.serve(t, addrs[0], tt.first)
				default:
					w.servers[0].Close()
				}
				w.connect(t, client.Options{}, addrs[0], addrs[1])
				err := tt.ask(w)
				if !errors.Is(err, tt.want) {
					t.Errorf("= %v, want %v", err, tt.want)
				}
				if got := len(w.orders()); got != tt.orders {
					t.Errorf("%d orders were heard, want %d", got, tt.orders)
				}
			})
		})
	}
}

func TestCompanionThatAnsweredIsAskedAgain(t *testing.T) {
	w := newWorld(t, 2, client.Options{})
	w.servers[0].Close()
	for range 2 {
		o, err := w.client.Cluster(t.Context())
		if err != nil || o.Companion != "n2" {
			t.Fatalf("Cluster = %+v, %v, want n2's", o, err)
		}
	}
	w.serve(t, addrs[0], http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the first was asked again") }))
	if _, err := w.client.Cluster(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhenAllAreAwayTheErrorSaysWhy(t *testing.T) {
	w := newWorld(t, 0, client.Options{})
	_, err := w.client.Pause(t.Context())
	if !errors.Is(err, client.ErrAway) || !strings.Contains(err.Error(), addrs[2]) || strings.Contains(err.Error(), "\n") {
		t.Errorf("Pause = %q, want one line with ErrAway and every address", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.client.Cluster(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Cluster of a context that has ended = %v, want context.Canceled", err)
	}
}

func TestWhoIsToldWhoLeadsAsksThere(t *testing.T) {
	for name, lead := range map[string]http.HandlerFunc{
		"by an error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusMisdirectedRequest)
			json.NewEncoder(w).Encode(api.Error{Code: api.CodeNotLeader, Message: "n2 leads", Leader: addrs[1]})
		},
		"by a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+addrs[1]+r.URL.Path, http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, client.Options{})
			w.serve(t, addrs[0], lead)
			w.connect(t, client.Options{}, addrs[0])
			if _, err := w.client.Switchover(t.Context(), "n1"); err != nil {
				t.Errorf("Switchover = %v", err)
			}
			if got := w.orders(); len(got) != 1 || got[0].Switchover.To != "n1" {
				t.Errorf("orders %+v, want a switchover to n1", got)
			}
		})
	}
}

func TestFollowingTheLeaderEnds(t *testing.T) {
	w := newWorld(t, 0, client.Options{})
	asked := 0
	for i, other := range []string{addrs[1], addrs[0]} {
		w.serve(t, addrs[i], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.WriteHeader(http.StatusMisdirectedRequest)
			json.NewEncoder(w).Encode(api.Error{Code: api.CodeNotLeader, Message: "the other leads", Leader: other})
		}))
	}
	w.connect(t, client.Options{}, addrs[0])
	if _, err := w.client.Pause(t.Context()); !errors.Is(err, &api.Error{Code: api.CodeNotLeader}) || asked > 10 {
		t.Errorf("Pause = %v after %d requests, want code %s after a few", err, asked, api.CodeNotLeader)
	}
}

// A redirect to plain text would take the token with it.
func TestTokenStaysWithTheScheme(t *testing.T) {
	w := newWorld(t, 0, client.Options{})
	w.serve(t, addrs[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://"+addrs[1]+r.URL.Path, http.StatusPermanentRedirect)
	}))
	w.serve(t, addrs[1], http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("it was followed with %q", r.Header)
	}))
	w.connect(t, client.Options{}, addrs[0])
	if _, err := w.client.Pause(t.Context()); !errors.Is(err, &api.Error{Code: api.CodeInternal}) {
		t.Errorf("Pause = %v, want code %s", err, api.CodeInternal)
	}
}

func TestAddressesOfCompanions(t *testing.T) {
	for addr, ok := range map[string]bool{
		"n1:7101": true, "[::1]:7101": true, "http://n1:7101": true, "https://n1:7101/": true,
		"": false, "n1": false, "ftp://n1:7101": false, "http://n1:7101/v1": false, "http://u:p@n1:7101": false, "n1:7101:7102": false,
	} {
		if _, err := client.New([]string{addr}, client.Options{}); (err == nil) != ok {
			t.Errorf("New(%q) = %v, want an error: %v", addr, err, !ok)
		} else if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("New(%q): %q has more than a line", addr, err)
		}
	}
	if _, err := client.New(nil, client.Options{}); err == nil {
		t.Error("New of no address = nil, want an error")
	}
}
