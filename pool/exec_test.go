package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/wal"
)

// A wired is a connection to the only node of a scripted cluster, in a bubble.
type wired struct {
	*testing.T
	*pgfake.Cluster
	*Conn
	node *pgfake.Node
}

// onWire plays f on a connection that keeps three statements. A round trip
// takes 20 ms.
func onWire(t *testing.T, f func(w *wired)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cluster := pgfake.NewCluster(1)
		cluster.Latency = 20 * time.Millisecond
		defer cluster.Close()
		cluster.Handle("SELECT v FROM many", pgfake.Reply{
			Columns: []pgfake.Column{{Name: "v", OID: pgtype.Int8OID}}, Rows: [][]any{{1}, {2}, {3}},
		})
		config, err := pgx.ParseConfig("postgres://app@n1/shop?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		config.DialFunc, config.LookupFunc = cluster.Dial, cluster.Lookup
		conn, err := Dial(t.Context(), DialOptions{Config: config, Traffic: &Traffic{}, StatementCapacity: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		f(&wired{t, cluster, conn, cluster.Node(1)})
	})
}

// prepare prepares sql and binds no arguments.
func (w *wired) prepare(sql string) *Prepared {
	w.Helper()
	p, err := w.Prepare(w.Context(), sql, false)
	if err == nil {
		err = w.Bind(p, nil, nil)
	}
	if err != nil {
		w.Fatalf("Prepare(%s) = %v", sql, err)
	}
	return p
}

// call sends a call and reads it to its end; it returns the rows of its main
// statement.
func (w *wired) call(fill func(*Call)) (*Call, int) {
	w.Helper()
	call := w.NewCall()
	call.SegmentSize = wal.DefaultSegmentSize
	fill(call)
	if err := w.Send(w.Context()); err != nil {
		w.Fatalf("Send() = %v", err)
	}
	rows := 0
	for {
		event, err := w.Next(w.Context())
		if err != nil {
			w.Fatalf("Next() = %v", err)
		}
		if event == EventEnd {
			return w.Result(), rows
		}
		if event == EventRow {
			rows++
		}
	}
}

const (
	insert = "INSERT INTO t VALUES (1)"
	many   = "SELECT v FROM many"
)

func TestACallIsOneRoundTripWhateverTravelsInIt(t *testing.T) {
	for name, fill := range map[string]func(p *Prepared) func(*Call){
		"a statement":   func(p *Prepared) func(*Call) { return func(c *Call) { c.Main = p } },
		"a proof":       func(p *Prepared) func(*Call) { return func(c *Call) { c.Main, c.Check = p, true } },
		"a proof apart": func(p *Prepared) func(*Call) { return func(c *Call) { c.Main, c.Check, c.CheckApart = p, true, true } },
		"a transaction": func(p *Prepared) func(*Call) {
			return func(c *Call) {
				c.Main, c.Begin, c.Durability, c.End, c.Committed = p, "BEGIN", true, HelperCommit, true
			}
		},
		"a position": func(p *Prepared) func(*Call) {
			return func(c *Call) { c.Main, c.Committed, c.ApartFromEnd = p, true, true }
		},
		"a text":  func(*Prepared) func(*Call) { return func(c *Call) { c.Text, c.Check = many+"; "+many, true } },
		"nothing": func(*Prepared) func(*Call) { return func(*Call) {} },
	} {
		t.Run(name, func(t *testing.T) {
			onWire(t, func(w *wired) {
				p := w.prepare(many)
				for range 3 {
					w.ResetLog()
					begun := time.Now()
					call, rows := w.call(fill(p))
					if took := time.Since(begun); took != w.Latency || w.node.Counters().RoundTrips != 1 {
						w.Errorf("it took %v and %d round trips", took, w.node.Counters().RoundTrips)
					}
					if call.Err != nil || !w.Clean() {
						w.Errorf("error %v, clean = %v", call.Err, w.Clean())
					}
					if want := map[string]int{"nothing": 0, "a text": 6}[name]; rows != want && (rows != 3 || want == 6) {
						w.Errorf("%d rows", rows)
					}
					if call.HasPosition != call.Check || call.Check && call.Position != w.node.Position().LSN {
						w.Errorf("position %v, %v", call.Position, call.HasPosition)
					}
					if (call.CommitLSN != 0) != call.Committed || (call.EndTag != "") != (call.End != HelperNone) {
						w.Errorf("commit position %v, end %q", call.CommitLSN, call.EndTag)
					}
				}
			})
		})
	}
}

func TestTheErrorOfACallSaysWhereItHappened(t *testing.T) {
	fail := pgfake.Fail("23505", "duplicate")
	for at, want := range map[string]Stage{
		"SELECT pg_catalog.pg_is_in_recovery()*": StageBefore, "BEGIN": StageBefore, insert: StageMain, "COMMIT": StageAfter,
		"SELECT pg_catalog.pg_current_wal_flush_lsn()*": StageAfter,
	} {
		t.Run(at, func(t *testing.T) {
			onWire(t, func(w *wired) {
				p := w.prepare(insert)
				w.node.Inject(at, 1, fail)
				before := w.node.Position()
				call, _ := w.call(func(c *Call) {
					c.Main, c.Check, c.Begin, c.End, c.Committed = p, true, "BEGIN", HelperCommit, true
				})
				if call.Err == nil || call.Err.Code != "23505" || call.ErrAt != want {
					w.Errorf("error %v at stage %d, want 23505 at %d", call.Err, call.ErrAt, want)
				}
				committed := w.node.Position() != before
				if (call.EndTag == "COMMIT") != committed {
					w.Errorf("end %q, committed = %v", call.EndTag, committed)
				}
				if err := w.Restore(w.Context(), nil); err != nil || !w.Clean() {
					w.Errorf("Restore() = %v, clean = %v", err, w.Clean())
				}
			})
		})
	}
}

// A statement without a COMMIT behind it is committed by its Sync.
func TestAFailureOfTheImplicitCommitBelongsToTheStatement(t *testing.T) {
	for name, apart := range map[string]bool{"alone": false, "a question behind it": true} {
		t.Run(name, func(t *testing.T) {
			onWire(t, func(w *wired) {
				p := w.prepare(insert)
				w.node.Inject(insert, 1, pgfake.Fault{AtCommit: &pgfake.Error{Code: "23503"}})
				call, _ := w.call(func(c *Call) { c.Main, c.Committed, c.ApartFromEnd = p, apart, apart })
				if call.Err == nil || call.Err.Code != "23503" || call.ErrAt != StageMain {
					w.Errorf("error %v at stage %d, want 23503 at %d", call.Err, call.ErrAt, StageMain)
				}
				if apart && call.CommitLSN == 0 {
					w.Error("what stands behind the statement's Sync was not answered")
				}
			})
		})
	}
}

func TestTheCommitPositionIsBehindTheCommitRecord(t *testing.T) {
	for name, tt := range map[string]struct {
		relaxed bool
		insert  wal.LSN // where the insert position stands afterwards; 0 for where it is
		want    func(n *pgfake.Node) wal.LSN
	}{
		"flushed":                        {false, 0, func(n *pgfake.Node) wal.LSN { return n.Position().LSN }},
		"relaxed":                        {true, 0x1000100, func(*pgfake.Node) wal.LSN { return 0x1000100 }},
		"relaxed, behind a page header":  {true, 0x1002018, func(*pgfake.Node) wal.LSN { return 0x1002000 }},
		"relaxed, behind a file header":  {true, 0x2000028, func(*pgfake.Node) wal.LSN { return 0x2000000 }},
		"flushed, others have gone on":   {false, 0x1009000, func(n *pgfake.Node) wal.LSN { return n.Position().LSN }},
		"relaxed, where a page is begun": {true, 0x1002020, func(*pgfake.Node) wal.LSN { return 0x1002020 }},
	} {
		t.Run(name, func(t *testing.T) {
			onWire(t, func(w *wired) {
				p := w.prepare(insert)
				if tt.insert != 0 {
					w.HandleFunc(func(n *pgfake.Node, sql string) (pgfake.Reply, bool) {
						if strings.HasPrefix(sql, "SELECT pg_catalog.pg_current_wal_flush_lsn()") {
							n.SetInsertLSN(tt.insert)
						}
						return pgfake.Reply{}, false
					})
				}
				if tt.relaxed {
					w.call(func(c *Call) { c.Text = "SET synchronous_commit = off" })
				}
				call, _ := w.call(func(c *Call) {
					c.Main, c.Begin, c.Durability, c.End, c.Committed = p, "BEGIN", true, HelperCommit, true
				})
				if want := tt.want(w.node); call.CommitLSN != want || call.CommitTimeline != 1 {
					w.Errorf("commit position %d:%v, want 1:%v", call.CommitTimeline, call.CommitLSN, want)
				}
			})
		})
	}
}

func TestAnInterruptedCallIsSettledAndTheConnectionGoesOn(t *testing.T) {
	onWire(t, func(w *wired) {
		p := w.prepare(insert)
		w.node.Inject(insert, 1, pgfake.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		call := w.NewCall()
		call.Main, call.Begin, call.End = p, "BEGIN", HelperCommit
		if err := w.Send(ctx); err != nil {
			w.Fatal(err)
		}
		_, err := w.Next(ctx)
		if cut, ok := errors.AsType[*InterruptedError](err); !ok || !cut.Sent || !errors.Is(err, context.DeadlineExceeded) {
			w.Errorf("Next() = %v, want that it was interrupted after something was sent", err)
		}
		if w.Idle() || w.Clean() || w.Broken() {
			w.Errorf("idle = %v, clean = %v, broken = %v", w.Idle(), w.Clean(), w.Broken())
		}
		if err := w.Restore(w.Context(), nil); err != nil || !w.Clean() {
			w.Errorf("Restore() = %v, clean = %v", err, w.Clean())
		}
		if got := w.node.Counters(); got.Cancels != 1 || got.Opened != 1 {
			w.Errorf("%d cancel requests, %d connections", got.Cancels, got.Opened)
		}
		if call, _ := w.call(func(c *Call) { c.Main = w.prepare(many) }); call.Err != nil {
			w.Errorf("afterwards: %v", call.Err)
		}
	})
}

// A server forgets a cancel request that comes while it waits for a command. One
// that overtakes the statement it is about, on a connection of its own, would be
// lost, and the statement would run to its end with nobody waiting for it.
func TestACancelRequestThatOvertakesItsStatementIsSentAgain(t *testing.T) {
	onWire(t, func(w *wired) {
		p := w.prepare(insert)
		w.node.Inject(insert, 1, pgfake.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(w.Context(), w.Latency/4) // the statement is still under way
		defer cancel()
		w.NewCall().Main = p
		if err := w.Send(ctx); err != nil {
			w.Fatal(err)
		}
		if err := w.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			w.Fatalf("Drain() = %v, want that its time was over", err)
		}
		begun := time.Now()
		if err := w.Restore(w.Context(), nil); err != nil || !w.Clean() {
			w.Fatalf("Restore() = %v, clean = %v", err, w.Clean())
		}
		if took := time.Since(begun); took > cancelAgain+3*w.Latency {
			w.Errorf("Restore() took %v, want little more than %v", took, cancelAgain)
		}
		if got := w.node.Counters(); got.Cancels != 2 || got.Opened != 1 {
			w.Errorf("%d cancel requests, %d connections, want 2 and 1", got.Cancels, got.Opened)
		}
		if call, _ := w.call(func(c *Call) { c.Main = w.prepare(many) }); call.Err != nil {
			w.Errorf("afterwards: %v", call.Err)
		}
	})
}

func TestALostConnectionSaysWhetherAnythingWasSent(t *testing.T) {
	onWire(t, func(w *wired) {
		p := w.prepare(insert)
		w.node.Inject(insert, 1, pgfake.Fault{Then: pgfake.Cut})
		w.NewCall().Main = p
		if err := w.Send(w.Context()); err != nil {
			w.Fatal(err)
		}
		if lost, ok := errors.AsType[*LostError](w.Drain(w.Context())); !ok || !lost.Sent || lost.LastWords != nil || !w.Broken() {
			w.Errorf("got %+v, want that something was sent", lost)
		}
		w.NewCall().Main = p
		if lost, ok := errors.AsType[*LostError](w.Send(w.Context())); !ok || lost.Sent {
			w.Errorf("got %+v, want that nothing was sent", lost)
		}
	})
	onWire(t, func(w *wired) {
		w.node.Inject(insert, 1, pgfake.Fault{Err: &pgfake.Error{Severity: "FATAL", Code: "57P01"}})
		w.send(w.prepare(insert))
		if lost, ok := errors.AsType[*LostError](w.Drain(w.Context())); !ok || lost.LastWords == nil || lost.LastWords.Code != "57P01" {
			w.Errorf("got %+v, want the server's last words", lost)
		}
	})
	onWire(t, func(w *wired) {
		w.node.Inject(insert, 1, pgfake.Fault{AtParse: true, Hang: true})
		time.AfterFunc(time.Second, w.node.Reset)
		_, err := w.Prepare(w.Context(), insert, false)
		if lost, ok := errors.AsType[*LostError](err); !ok || lost.Sent {
			w.Errorf("Prepare() = %v, want that nothing was sent to be executed", err)
		}
	})
}

// send sends p and reads nothing.
func (w *wired) send(p *Prepared) {
	w.NewCall().Main = p
	if err := w.Send(w.Context()); err != nil {
		w.Fatal(err)
	}
}

func TestStatementsBeyondTheCapacityAreClosedOnTheServer(t *testing.T) {
	onWire(t, func(w *wired) {
		for i := range 20 {
			p := w.prepare(fmt.Sprintf("SELECT %d", i))
			if call, rows := w.call(func(c *Call) { c.Main = p }); call.Err != nil || rows != 1 {
				w.Errorf("statement %d: %d rows, %v", i, rows, call.Err)
			}
			if len(w.prepared) > 3 {
				w.Errorf("%d statements are prepared, want 3 at most", len(w.prepared))
			}
		}
		w.ResetLog()
		w.prepare("SELECT 19")
		if got := w.node.Counters().Parses; got != 0 {
			w.Errorf("the newest statement was prepared again")
		}
		w.Forget("SELECT 19")
		if w.Known("SELECT 19") {
			w.Error("a forgotten statement is known")
		}
		w.prepare("SELECT 19")
	})
}

func TestARestoredConnectionKeepsItsStatements(t *testing.T) {
	onWire(t, func(w *wired) {
		p := w.prepare(insert)
		w.call(func(c *Call) { c.Main, c.Begin = p, "BEGIN" })
		w.Dirty()
		w.call(func(c *Call) { c.Text = "SET application_name = 'mine'" })
		hooked := 0
		hook := func(context.Context, *pgx.Conn) error { hooked++; return nil }
		if err := w.Restore(w.Context(), hook); err != nil || !w.Clean() || w.Touched() {
			w.Fatalf("Restore() = %v, clean = %v", err, w.Clean())
		}
		if hooked != 1 || !w.Known(insert) {
			w.Errorf("the hook ran %d times, the statement is known: %v", hooked, w.Known(insert))
		}
		w.DirtyStatements()
		if err := w.Restore(w.Context(), hook); err != nil || w.Known(insert) {
			w.Errorf("Restore() = %v, the statement is known: %v", err, w.Known(insert))
		}
		if call, _ := w.call(func(c *Call) {
			c.Main, c.Begin, c.End, c.Committed = w.prepare(insert), "BEGIN", HelperCommit, true
		}); call.Err != nil {
			w.Errorf("afterwards: %v", call.Err)
		}
	})
}

func TestTheCountOfATagIsItsLastNumber(t *testing.T) {
	for tag, want := range map[string]int64{
		"INSERT 0 1": 1, "UPDATE 120": 120, "DELETE 0": 0, "SELECT 9007199254740993": 9007199254740993, "COMMIT": 0, "": 0,
		"CREATE TABLE": 0, "COPY 5": 5, " 5": 5, "MERGE 42": 42,
	} {
		if got := affected([]byte(tag)); got != want {
			t.Errorf("affected(%q) = %d, want %d", tag, got, want)
		}
	}
}
