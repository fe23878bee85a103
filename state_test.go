package helios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/topology"
)

func TestAFunctionNobodyCanSeeIntoHoldsItsSession(t *testing.T) {
	play(t, 2, rare+"&pool_max_conns=2", func(s *stage) {
		s.Handle("SELECT app.set_tenant($1)", pgfake.Row("done"))
		conn := s.session()
		s.exec(s.Context(), conn, "SELECT app.set_tenant($1)", "alice")
		if got := s.node(s.Context(), conn); got != "n1" {
			s.Errorf("a read of the session went to %s, want n1, where its tenant is set", got)
		}
		if got := s.node(s.Context(), s.db); got != "n2" {
			s.Errorf("a read of another session went to %s, want n2", got)
		}
		s.finish(conn)
		time.Sleep(time.Second)
		synctest.Wait()
		s.wantExecuted("RESET ALL", "n1")
	})
}

func TestABuiltInFunctionHoldsNobody(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Handle("SELECT nextval('s')", pgfake.Row(int64(1)))
		conn := s.session()
		s.exec(s.Context(), conn, "SELECT nextval('s')")
		s.finish(conn)
		time.Sleep(time.Second)
		synctest.Wait()
		s.wantExecuted("RESET ALL")
	})
}

func TestWithoutFallbackABlindWriteIsLearnedAbout(t *testing.T) {
	play(t, 2, rare+"&lsn=lazy&replica_fallback=error", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		for range 3 {
			if got := s.node(s.Context(), s.db); got != "n2" {
				s.Errorf("the read went to %s, want n2", got)
			}
		}
		if got := s.cluster.Token(); got.LSN != s.Node(1).Position().LSN {
			s.Errorf("the session's token is %v, want the primary's position %v", got, s.Node(1).Position())
		}
	})
}

func TestTheFirstStatementWaitsForTheClusterToBeKnown(t *testing.T) {
	play(t, 2, "failover_wait=0s", func(s *stage) {
		connector, err := NewConnector(s.cluster.config, WithDialFunc(s.Dial), WithLookupFunc(s.Lookup))
		if err != nil {
			s.Fatal(err)
		}
		defer connector.Close()
		conn, err := connector.Connect(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.(*Conn).ExecContext(context.Background(), insert, nil); err != nil { //nolint:forcetypeassert // our connector makes nothing else
			s.Errorf("the first statement of a process = %v", err)
		}
	})
}

// What Status says of a node and how statements are routed is one thing: there is
// no moment in which a node is refused, and read all the same.
func TestStatusSaysHowStatementsAreRouted(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		board := s.cluster.board
		state := func() string { return s.cluster.Status().Nodes[1].State }
		s.cluster.mu.Lock() // no routes are made
		told := make(chan struct{})
		go func() {
			board.Doubt(board.Peek().Nodes[1].Name, errors.New("lost"))
			close(told)
		}()
		for board.Peek().Nodes[1].State == topology.StateUp {
			runtime.Gosched()
		}
		if got := state(); got != "up" {
			s.Errorf("a node to which statements go is %s", got)
		}
		s.cluster.mu.Unlock()
		<-told
		if got := state(); got != "down" {
			s.Errorf("a node to which no statements go is %s", got)
		}
	})
}

func TestExplainTakesNobodysLossAway(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		session := NewSession()
		ctx := WithSession(s.Context(), session)
		s.node(ctx, s.db)
		view := s.cluster.board.Peek()
		session.Advance(Token{SystemID: view.SystemID, Timeline: view.Timeline, LSN: view.Nodes[0].CurrentLSN + 1<<20})
		s.Node(1).Kill()
		s.Promote(s.Node(2))
		s.cluster.prober.Kick("")
		time.Sleep(time.Second)
		synctest.Wait()
		for range 2 {
			_, err := s.cluster.Explain(ctx, where)
			s.wantError("Explain", err, ErrWriteLost)
		}
		s.wantError("the read", s.db.QueryRowContext(ctx, where).Scan(new(string)), ErrWriteLost)
		if got := s.node(ctx, s.db); got == "" {
			s.Error("the session does not go on after it was told")
		}
	})
}

func TestWhenNoNodeAnswersProbesThoseWhoWereGoodAreTried(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		for _, node := range s.Nodes() {
			node.Inject("~pg_postmaster_start_time", 0, pgfake.Fail("53200", "out of memory"))
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for _, node := range s.cluster.Status().Nodes {
			if node.Healthy {
				s.Fatalf("%+v is healthy, want nobody to be", node)
			}
		}
		s.within(2*trip, "a write", func() { s.exec(s.Context(), s.db, insert) })
		if got := s.node(s.Context(), s.db); got != "n2" {
			s.Errorf("a read went to %s, want n2", got)
		}
		for _, node := range s.Nodes() {
			node.Kill()
		}
		_, err := s.db.ExecContext(s.Context(), insert)
		s.wantError("a write when nobody is there", err, ErrNoPrimary)
	})
}

func TestWhatIsNoAddressIsNotAdded(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		for _, address := range []string{"", "a,b", "helios://x", "127.0.0.1 :1", "db4:notaport", "app@db4", "db4/shop", "db4?x=1"} {
			if err := s.cluster.AddReplica(s.Context(), address); err == nil {
				s.Errorf("AddReplica(%q) = nil, want an error", address)
			}
		}
		if got := len(s.cluster.Status().Nodes); got != 2 {
			s.Errorf("%d nodes, want the 2 there were", got)
		}
		for address, want := range map[string]string{
			"db4": "db4:5432", "db5:5433": "db5:5433", "[::1]:5434": "[::1]:5434", "/run/postgresql": "/run/postgresql/.s.PGSQL.5432",
		} {
			if host, err := parseAddress(address); err != nil || host.String() != want {
				s.Errorf("parseAddress(%q) = %v, %v, want %s", address, host, err, want)
			}
		}
	})
}

func TestAConfigShowsItsPasswordInNoForm(t *testing.T) {
	cfg, err := ParseDSN("helios://app:hush@db1/shop")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), string(asJSON)} {
		if strings.Contains(text, "hush") || !strings.Contains(text, "db1") {
			t.Errorf("%s: want the host and no password", text)
		}
	}
}
