package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// connectTo returns what a Prober needs to reach the nodes of c.
func connectTo(c *pgfake.Cluster) func(context.Context, string) (*pgconn.PgConn, error) {
	return func(ctx context.Context, node string) (*pgconn.PgConn, error) {
		config, err := pgconn.ParseConfig("postgres://app:hush@" + node + "/shop?sslmode=disable")
		if err != nil {
			return nil, err
		}
		config.DialFunc, config.LookupFunc = c.Dial, c.Lookup
		config.RuntimeParams["application_name"] = ApplicationName
		return pgconn.ConnectConfig(ctx, config)
	}
}

// A bench is a Prober at work on a scripted cluster, in a bubble.
type bench struct {
	*testing.T
	*pgfake.Cluster
	board  *topology.Board
	prober *Prober
	stop   func() // ends the prober and waits for it
}

// probing plays f while a Prober watches n nodes; the first is the primary.
func probing(t *testing.T, n int, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := pgfake.NewCluster(n)
		c.Latency = time.Millisecond
		defer c.Close()
		answerProbes(c, nil)
		var nodes []topology.Node
		for _, node := range c.Nodes() {
			nodes = append(nodes, topology.Node{Name: node.Address()})
		}
		board := topology.NewBoard(nodes...)
		p := &Prober{
			Board: board, Interval: time.Second, Timeout: 300 * time.Millisecond, Crisis: 25 * time.Millisecond,
			Connect: connectTo(c), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		end := errors.New("the test is over")
		stop := func() {
			if cancel(end); !errors.Is(<-ended, end) {
				t.Error("Run did not return the cause of its end")
			}
		}
		b := &bench{t, c, board, p, stop}
		f(b)
		b.stop()
	})
}

// answerProbes makes nodes answer the probe. Columns from alter replace the
// node's own.
func answerProbes(c *pgfake.Cluster, alter map[int]any) {
	c.HandleFunc(func(n *pgfake.Node, sql string) (pgfake.Reply, bool) {
		if !strings.HasPrefix(sql, "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN NOT") {
			return pgfake.Reply{}, false
		}
		at := n.Position()
		row := make([]any, allColumns)
		row[colRecovery] = !n.IsPrimary()
		row[colSegmentSize], row[colIsolation], row[colReadOnly] = 16<<20, "read committed", "off"
		row[colVersion], row[colMayReadFile], row[colReplayedEnd], row[colSystem] = "150018", false, "2000-01-01 00:00:00+00", int64(c.SystemID)
		row[colRecoveryEndTimeline], row[colRecoveryEnd] = 0, "0/0"
		row[colCheckpointTimeline], row[colCheckpoint] = 1, "0/28"
		if n.IsPrimary() {
			row[colTimeline], row[colFlush] = fmt.Sprintf("%08X", uint32(at.Timeline)), at.LSN.String()
			if begun, ok := c.History().Begin(at.Timeline); ok {
				row[colReplay] = begun.String()
			}
		} else {
			row[colReceive], row[colReplay] = at.LSN.String(), at.LSN.String()
			row[colReceivedTimeline] = int(at.Timeline)
		}
		for col, value := range alter {
			row[col] = value
		}
		if !strings.Contains(sql, "pg_control_system") {
			row = row[:columns]
		}
		return pgfake.Row(row...), true
	})
}

// view lets the prober work for d, and returns what the board then shows.
func (b *bench) view(d time.Duration) *topology.View {
	time.Sleep(d)
	synctest.Wait()
	return b.board.Peek()
}

func TestAProbeTellsWhatANodeIs(t *testing.T) {
	probing(t, 2, func(b *bench) {
		v := b.view(100 * time.Millisecond)
		if v.Primary != 0 || !v.Settled || v.SystemID != b.SystemID || v.Timeline != 1 {
			b.Fatalf("view %+v, want settled, primary 0, timeline 1", v)
		}
		if want := (topology.Settings{SegmentSize: 16 << 20, SnapshotPerStmt: true}); v.Settings != want {
			b.Errorf("Settings = %+v, want %+v", v.Settings, want)
		}
		p, r := v.Nodes[0], v.Nodes[1]
		if p.Version != 150018 || p.RTT != time.Millisecond || p.CurrentLSN != b.Node(1).Position().LSN {
			b.Errorf("primary %+v", p)
		}
		if r.Role != topology.RoleReplica || r.State != topology.StateUp || r.ReplayLSN != p.CurrentLSN || r.Lag != 0 {
			b.Errorf("replica %+v", r)
		}
	})
}

func TestAProbeIsOneRoundTripOnAConnectionThatStaysOpen(t *testing.T) {
	probing(t, 1, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.ResetLog()
		b.view(10 * time.Second)
		got := b.Node(1).Counters()
		if got.Opened != 0 || got.Statements < 9 || got.Statements > 11 || got.RoundTrips != got.Statements {
			b.Errorf("in 10 s %+v, want about 10 statements, a round trip each, and no new connection", got)
		}
	})
}

func TestAKickProbesAtOnce(t *testing.T) {
	probing(t, 2, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.ResetLog()
		b.prober.Kick(b.Node(2).Address())
		b.prober.Kick(b.Node(2).Address())
		b.prober.Kick("no such node")
		b.view(10 * time.Millisecond)
		if one, two := b.Node(1).Counters().Statements, b.Node(2).Counters().Statements; one != 0 || two < 1 {
			b.Errorf("after Kick(n2): %d and %d statements, want 0 and some", one, two)
		}
		b.ResetLog()
		b.prober.Kick("")
		b.view(10 * time.Millisecond)
		if one, two := b.Node(1).Counters().Statements, b.Node(2).Counters().Statements; one != 1 || two != 1 {
			b.Errorf("after Kick(all): %d and %d statements, want 1 and 1", one, two)
		}
	})
}

func TestASilentNodeIsDownAfterTheTimeoutAndDelaysNobody(t *testing.T) {
	for name, fall := range map[string]func(*pgfake.Node){
		"frozen":  (*pgfake.Node).Hang,
		"cut off": (*pgfake.Node).BlackHole,
	} {
		t.Run(name, func(t *testing.T) {
			probing(t, 2, func(b *bench) {
				b.view(500 * time.Millisecond)
				fall(b.Node(1))
				v := b.view(1500 * time.Millisecond)
				n := v.Nodes[0]
				if n.State != topology.StateDown || n.Reason != "no answer within 300ms" || n.Role != topology.RolePrimary {
					b.Errorf("n1 is %s, %q, want down for no answer within 300ms", n.State, n.Reason)
				}
				if v.Primary != -1 || v.LastPrimary != 0 || v.Nodes[1].State != topology.StateUp {
					b.Errorf("view %+v, want no primary, last 0, n2 up", v)
				}
			})
		})
	}
}

func TestACrashedNodeIsDownAtTheNextProbeAndBackAfterItsStart(t *testing.T) {
	probing(t, 2, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.Node(1).Kill()
		b.prober.Kick("")
		if v := b.view(5 * time.Millisecond); v.Nodes[0].State != topology.StateDown {
			b.Errorf("after the crash %+v", v.Nodes[0])
		}
		b.Node(1).Start()
		if v := b.view(50 * time.Millisecond); v.Primary != 0 {
			b.Errorf("50 ms after its start %+v, want the primary", v.Nodes[0])
		}
	})
}

func TestAPromotionIsSeenAtCrisisPaceWithItsSwitchPoint(t *testing.T) {
	probing(t, 3, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.Node(1).Kill()
		b.prober.Kick("")
		b.view(time.Second)
		begun := b.Promote(b.Node(2))
		v := b.view(35 * time.Millisecond)
		if v.Primary != 1 || v.Timeline != 2 {
			b.Fatalf("35 ms after the promotion %+v, want n2 as the primary of timeline 2", v)
		}
		if got, ok := v.History.Begin(2); !ok || got != begun {
			b.Errorf("timeline 2 began at %s, %v; want %s", got, ok, begun)
		}
	})
}

func TestAConnectionMadeAfterAPromotionTrustsNoReplayPosition(t *testing.T) {
	probing(t, 2, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.Node(1).Kill()
		b.Node(2).Reset()
		b.Promote(b.Node(2))
		b.prober.Kick("")
		v := b.view(100 * time.Millisecond)
		if v.Primary != 1 {
			b.Fatalf("%+v, want n2 as the primary", v)
		}
		if got, ok := v.History.Begin(2); ok {
			b.Errorf("timeline 2 began at %s, want unknown: it may be the end of a crash recovery", got)
		}
	})
}

func TestACrisisSlowsDownAfterAWhile(t *testing.T) {
	probing(t, 1, func(b *bench) {
		b.Node(1).Refuse()
		b.Node(1).Terminate()
		b.prober.Kick("")
		b.view(2 * time.Second)
		for _, tt := range []struct {
			span     time.Duration
			min, max int
		}{{2 * time.Second, 70, 90}, {6 * time.Second, 0, 1000}, {10 * time.Second, 36, 45}} {
			before := b.board.Peek().Version
			b.view(tt.span)
			probes := int(b.board.Peek().Version - before)
			if probes < tt.min || probes > tt.max {
				b.Errorf("%d probes in %v, want %d to %d", probes, tt.span, tt.min, tt.max)
			}
		}
	})
}

func TestAFullNodeIsNotDownAndAStartingOneIs(t *testing.T) {
	probing(t, 2, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.Node(1).RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: "53300", Message: "sorry, too many clients already"})
		b.Node(1).Terminate()
		b.Node(2).RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: "57P03", Message: "the database system is starting up"})
		b.Node(2).Terminate()
		v := b.view(2 * time.Second)
		if v.Primary != 0 || v.Nodes[0].State != topology.StateUp {
			b.Errorf("the full primary is %+v, want up", v.Nodes[0])
		}
		if n := v.Nodes[1]; n.State != topology.StateDown || n.Reason != "FATAL: the database system is starting up (SQLSTATE 57P03)" {
			b.Errorf("the starting replica is %s: %q, want down", n.State, n.Reason)
		}
	})
}

func TestThatSomebodyEndedTheProbesSessionSaysNothing(t *testing.T) {
	probing(t, 1, func(b *bench) {
		b.view(500 * time.Millisecond)
		changed := b.board.Changed()
		b.Node(1).Terminate()
		b.view(5 * time.Second)
		select {
		case <-changed:
			b.Errorf("the view changed: %+v", b.board.Peek())
		default:
		}
	})
}

func TestNodesAddedAndRemovedAreNoticed(t *testing.T) {
	probing(t, 3, func(b *bench) {
		b.view(500 * time.Millisecond)
		two := b.Node(2).Address()
		if err := b.board.Remove(two); err != nil {
			b.Fatal(err)
		}
		b.view(100 * time.Millisecond)
		if open := b.Node(2).Counters().Open; open != 0 {
			b.Errorf("%d connections to the removed node, want none", open)
		}
		if err := b.board.Add(topology.Node{Name: two}); err != nil {
			b.Fatal(err)
		}
		v := b.view(100 * time.Millisecond)
		if n := v.Nodes[v.Index(two)]; n.State != topology.StateUp {
			b.Errorf("the node added again is %+v, want up", n)
		}
	})
}

func TestRunLeavesNothingBehind(t *testing.T) {
	probing(t, 3, func(b *bench) {
		b.view(500 * time.Millisecond)
		b.Node(2).Hang()
		b.Node(3).BlackHole()
		b.prober.Kick("")
		b.view(100 * time.Millisecond) // two probes are waiting
		begun := time.Now()
		b.stop()
		b.stop = func() {}
		if took := time.Since(begun); took > 20*time.Millisecond {
			b.Errorf("Run took %v to return", took)
		}
		if v := b.board.Peek(); v.Nodes[1].State != topology.StateUp {
			b.Errorf("being stopped was held against n2: %+v", v.Nodes[1])
		}
		b.prober.Kick("")
	})
}

func TestTheControlFileIsNotNeeded(t *testing.T) {
	probing(t, 2, func(b *bench) {
		for _, n := range b.Nodes() {
			n.Inject("~pg_control_system", 0, pgfake.Fail("42501", "permission denied for function pg_control_system"))
		}
		v := b.view(100 * time.Millisecond)
		if v.Primary != 0 || v.SystemID != 0 || v.Nodes[1].Timeline != 1 {
			b.Errorf("view %+v, want primary 0 of an unknown cluster", v)
		}
		b.ResetLog()
		b.view(5 * time.Second)
		if got := b.Node(1).Counters(); got.RoundTrips > 6 {
			b.Errorf("%+v in 5 s, want a round trip each", got)
		}
	})
}

func TestNoPasswordIsTold(t *testing.T) {
	probing(t, 1, func(b *bench) {
		b.Node(1).RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: "28P01", Message: "password authentication failed"})
		b.Node(1).Terminate()
		b.prober.Kick("")
		if got := b.view(time.Second).Nodes[0].Reason; strings.Contains(got, "hush") || got == "" {
			b.Errorf("Reason = %q", got)
		}
	})
}

func TestOddAnswersAreFailures(t *testing.T) {
	for name, alter := range map[string]map[int]any{
		"no LSN":      {colFlush: "nowhere"},
		"no timeline": {colTimeline: "gggg"},
		"no version":  {colVersion: "fifteen"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := pgfake.NewCluster(1)
			defer c.Close()
			answerProbes(c, alter)
			if o, err := askOnce(t, c, 1); err == nil {
				t.Errorf("%s: %+v, want an error", name, o)
			}
		})
	}
}

// askOnce asks node i over a new connection.
func askOnce(t *testing.T, c *pgfake.Cluster, i int) (topology.Observation, error) {
	t.Helper()
	conn, err := connectTo(c)(t.Context(), c.Node(i).Address())
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{conn: conn}
	defer a.close()
	return a.ask(t.Context())
}

func TestAReplicasTimelineIsTheHighestProven(t *testing.T) {
	for name, tt := range map[string]struct {
		columns map[int]any
		want    wal.Position
	}{
		"streaming, and allowed to see it": {map[int]any{colReceivedTimeline: 2}, wal.Position{Timeline: 2, LSN: 0x500}},
		"end of recovery is newer":         {map[int]any{colRecoveryEndTimeline: 2, colRecoveryEnd: "0/300"}, wal.Position{Timeline: 2, LSN: 0x300}},
		"checkpoint is newer":              {map[int]any{colCheckpointTimeline: 3, colCheckpoint: "0/400", colRecoveryEndTimeline: 2, colRecoveryEnd: "0/450"}, wal.Position{Timeline: 3, LSN: 0x400}},
		"the further of equal ones":        {map[int]any{colRecoveryEndTimeline: 1, colRecoveryEnd: "0/300"}, wal.Position{Timeline: 1, LSN: 0x300}},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := pgfake.NewCluster(2)
			defer c.Close()
			columns := map[int]any{colReplay: "0/500", colReceive: "0/400", colReceivedTimeline: nil}
			maps.Copy(columns, tt.columns)
			answerProbes(c, columns)
			o, err := askOnce(t, c, 2)
			if err != nil {
				t.Fatal(err)
			}
			if got := (wal.Position{Timeline: o.Timeline, LSN: o.TimelineLSN}); got != tt.want {
				t.Errorf("%s: got %s, want %s", name, got, tt.want)
			}
			if o.ReceiveLSN != 0x500 || o.ReplayLSN != 0x500 {
				t.Errorf("%s: received %s, replayed %s; want 0/500 twice", name, o.ReceiveLSN, o.ReplayLSN)
			}
		})
	}
}

func TestAHistoryFileIsReadOncePerTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := pgfake.NewCluster(1)
		defer c.Close()
		answerProbes(c, map[int]any{colMayReadFile: true, colTimeline: "00000003"})
		c.Handle("SELECT pg_catalog.pg_read_file('pg_wal/00000003.history', 0, 1048576, true)", pgfake.Row("1\t0/100\tx\n2\t0/200\ty\n"))
		conn, err := connectTo(c)(t.Context(), c.Node(1).Address())
		if err != nil {
			t.Fatal(err)
		}
		a := &asker{conn: conn}
		defer a.close()
		for _, want := range []int{2, 0} {
			o, err := a.ask(t.Context())
			if err != nil || len(o.History) != want {
				t.Errorf("History = %v, %v; want %d switches", o.History, err, want)
			}
		}
	})
}

func TestTheTextOfAFailureIsShort(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for want, err := range map[string]error{
		"dial tcp: connection refused": errors.Join(errors.New("user=app"), refused),
		"two lines":                    errors.New("two\n\tlines"),
		": full (SQLSTATE 53300)":      errors.Join(errors.New("user=app"), &pgconn.PgError{Code: "53300", Message: "full"}),
	} {
		got := brief(err)
		if got.Error() != want || !errors.Is(got, err) {
			t.Errorf("brief(%v) = %q, want %q around it", err, got, want)
		}
	}
}
