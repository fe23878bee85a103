package helios

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// ways are how a session may read; each returns what it has seen.
var ways = map[string]func(ctx context.Context, s *stage) wal.LSN{
	"alone": func(ctx context.Context, s *stage) wal.LSN { return s.seen(ctx, s.db) },
	"with others in one text": func(ctx context.Context, s *stage) wal.LSN {
		return wal.LSN(one[int64](s, ctx, s.db, visible+"; "+visible))
	},
	"on a sql.Conn": func(ctx context.Context, s *stage) wal.LSN {
		conn := s.session()
		defer s.finish(conn)
		return s.seen(ctx, conn)
	},
	"on a sql.Conn with state": func(ctx context.Context, s *stage) wal.LSN {
		conn := s.session()
		defer s.finish(conn)
		s.exec(ctx, conn, "SET work_mem = '1MB'")
		return s.seen(ctx, conn)
	},
	"with a hint for the primary": func(ctx context.Context, s *stage) wal.LSN { return s.seen(Primary(ctx), s.db) },
	"with consistency=strong":     func(ctx context.Context, s *stage) wal.LSN { return s.seen(WithConsistency(ctx, Strong), s.db) },
	"in a transaction": func(ctx context.Context, s *stage) wal.LSN {
		return s.seenInTx(ctx, &sql.TxOptions{}, (*sql.Tx).Commit)
	},
	"in a transaction that is rolled back": func(ctx context.Context, s *stage) wal.LSN {
		return s.seenInTx(ctx, &sql.TxOptions{}, (*sql.Tx).Rollback)
	},
	"in a read-only transaction": func(ctx context.Context, s *stage) wal.LSN {
		return s.seenInTx(ctx, &sql.TxOptions{ReadOnly: true}, (*sql.Tx).Commit)
	},
	"in a read-only transaction with one snapshot that is rolled back": func(ctx context.Context, s *stage) wal.LSN {
		return s.seenInTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}, (*sql.Tx).Rollback)
	},
}

// seen reads how much of the WAL the node shows that answers.
func (s *stage) seen(ctx context.Context, q queryer) wal.LSN {
	s.Helper()
	return wal.LSN(one[int64](s, ctx, q, visible))
}

// seenInTx does so in a transaction.
func (s *stage) seenInTx(ctx context.Context, opts *sql.TxOptions, end func(*sql.Tx) error) wal.LSN {
	s.Helper()
	tx, err := s.db.BeginTx(ctx, opts)
	if err != nil {
		s.Fatal(err)
	}
	seen := s.seen(ctx, tx)
	if err := end(tx); err != nil {
		s.Errorf("the end of the transaction: %v", err)
	}
	return seen
}

func TestASessionNeverReadsBackwards(t *testing.T) {
	for name, read := range ways {
		for _, params := range []string{"balance=random", "balance=round_robin&lsn=lazy", "balance=random&default_transaction_isolation=repeatable+read"} {
			t.Run(name+" "+params, func(t *testing.T) {
				play(t, 4, rare+"&"+params, func(s *stage) {
					s.Node(3).StopReplay()
					s.exec(s.Context(), s.db, insert)
					s.Node(4).StopReplay()
					s.exec(s.Context(), s.db, insert)
					newest := s.Node(1).Position().LSN
					ctx, saw := WithSession(s.Context(), NewSession()), wal.LSN(0)
					for n := 0; saw < newest; n++ {
						if saw = read(ctx, s); n > 100 {
							s.Fatal("the newest state is not seen: nothing is tested")
						}
					}
					for range 20 {
						if got := s.seen(ctx, s.db); got < saw {
							s.Fatalf("a read saw %s behind one that saw %s; log:\n%s", got, saw, s.told())
						}
					}
				})
			})
		}
	}
}

// Its token takes what a session has seen to another process.
func TestWhatASessionHasReadTravelsWithItsToken(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.Node(3).StopReplay()
		s.exec(s.Context(), s.db, insert)
		ctx := WithSession(s.Context(), NewSession())
		saw := s.seen(Primary(ctx), s.db)
		for range 20 {
			if got := s.seen(carry(s, ctx), s.db); got < saw {
				s.Fatalf("a read with the token saw %s, the session had seen %s", got, saw)
			}
		}
	})
}

// Reads that ask for less than the session's consistency, or for one node, whatever it shows,
// hold nobody up.
func TestReadsThatAskForLessDoNotCount(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		session := NewSession()
		ctx := WithSession(s.Context(), session)
		for range 5 {
			s.seen(WithConsistency(ctx, Eventual), s.db)
			s.seen(MaxStaleness(ctx, time.Hour), s.db)
			s.seen(Node(ctx, "n1"), s.db)
			s.seen(Node(ctx, "n2"), s.db)
			if err := s.db.PingContext(ctx); err != nil {
				s.Errorf("Ping() = %v", err)
			}
		}
		if got := session.Token(); !got.IsZero() {
			s.Errorf("the token is %v, want none", got)
		}
	})
	play(t, 2, rare+"&lsn=off&consistency=eventual", func(s *stage) {
		session := NewSession()
		s.seen(WithConsistency(WithSession(s.Context(), session), PerSession), s.db)
		if got := session.Token(); !got.IsZero() {
			s.Errorf("with lsn=off the token is %v, want none", got)
		}
	})
}

func TestWhatASessionReadsCostsNoRoundTrip(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.warm(insert)
		ctx := WithSession(s.Context(), NewSession())
		s.costs(1, "first read", func() { s.node(ctx, s.db) })
		s.exec(ctx, s.db, insert)
		for range 5 {
			s.costs(1, "read on a replica", func() { s.node(ctx, s.db) })
		}
		s.costs(1, "read on the primary", func() { s.node(Primary(ctx), s.db) })
		s.costs(1, "read of what was seen there", func() { s.node(ctx, s.db) })
	})
}

// The session of the whole *sql.DB would have all readers wait for the fastest.
func TestReadsWithoutASessionAskNothing(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		before := s.cluster.Token()
		for _, ctx := range []context.Context{s.Context(), Primary(s.Context()), WithConsistency(s.Context(), Strong)} {
			s.seen(ctx, s.db)
		}
		if got := s.cluster.Token(); got != before {
			s.Errorf("token %v after reads, %v before", got, before)
		}
		for _, e := range s.Log() {
			if strings.Contains(e.SQL, "pg_last_wal_receive_lsn") && !isProbe(e.SQL) {
				s.Errorf("%s was asked %s", e.Node, e.SQL)
			}
		}
	})
}

// What a session has only read may be lost as well. It is told before it reads anything
// older, wherever it reads.
func TestASessionIsToldThatWhatItHasReadIsLost(t *testing.T) {
	for name, read := range ways {
		t.Run(name, func(t *testing.T) {
			play(t, 3, "", func(s *stage) {
				s.Node(2).StopReplay()
				s.exec(s.Context(), s.db, insert)
				ctx := WithSession(s.Context(), NewSession())
				s.seen(Primary(ctx), s.db)
				s.Node(1).Kill()
				s.Node(3).Kill()
				began := s.Promote(s.Node(2))
				time.Sleep(2 * time.Second)
				synctest.Wait()
				err := s.db.QueryRowContext(Primary(ctx), where).Scan(new(string))
				s.wantError("the first read", err, ErrWriteLost)
				if err != nil && !strings.Contains(err.Error(), "on timeline 1, and timeline 2 goes on from "+began.String()) {
					s.Errorf("%v, want both timelines named, and where they parted, %s", err, began)
				}
				read(ctx, s)
				read(ctx, s)
			})
		})
	}
}

// What was lost was written on the timeline before, not on the one that the session
// has got to since.
func TestALostWriteIsToldWithItsOwnTimeline(t *testing.T) {
	view := &topology.View{SystemID: 7, Timeline: 3, History: wal.History{{Timeline: 2, LSN: 0x100}, {Timeline: 3, LSN: 0x200}}}
	for name, tt := range map[string]struct {
		seen []wal.Position
		read wal.LSN // what was only read, on the timeline of the last of them
		want string
	}{
		"on the timeline of the session": {
			[]wal.Position{{Timeline: 2, LSN: 0x201}},
			0,
			"the session had written or read up to 0/201 on timeline 2, and timeline 3 goes on from 0/200",
		},
		"before it wrote again": {
			[]wal.Position{{Timeline: 1, LSN: 0x180}, {Timeline: 2, LSN: 0x190}},
			0,
			"the session had written or read up to 0/180 on timeline 1, and timeline 2 goes on from 0/100",
		},
		"two timelines before": {
			[]wal.Position{{Timeline: 1, LSN: 0x180}, {Timeline: 3, LSN: 0x290}},
			0,
			"the session had written or read up to 0/180 on timeline 1, and timeline 2 goes on from 0/100",
		},
		"it was only read": {
			[]wal.Position{{Timeline: 2, LSN: 0x200}},
			0x210,
			"none of the session's own, but it had read up to 0/210 on timeline 2, and timeline 3 goes on from 0/200",
		},
		"what was written before it was read as well": {
			[]wal.Position{{Timeline: 2, LSN: 0x208}},
			0x210,
			"the session had written or read up to 0/210 on timeline 2, and timeline 3 goes on from 0/200",
		},
	} {
		s := NewSession()
		for _, p := range tt.seen {
			s.Advance(Token{SystemID: 7, Timeline: p.Timeline, LSN: p.LSN})
		}
		if tt.read != 0 {
			s.advance(Token{SystemID: 7, Timeline: tt.seen[len(tt.seen)-1].Timeline, LSN: tt.read}, 0)
		}
		_, verdict, lost := s.wants(view)
		if err := lost.error(); verdict != wal.Lost || !errors.Is(err, ErrWriteLost) || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%s: verdict %v, %v, want %q at its end", name, verdict, err, tt.want)
		}
	}
}

// A standby does not tell its timeline. Where its position may belong to either side of a
// fork the session looks on the primary.
func TestWhatAReplicaHasShownBelongsToATimeline(t *testing.T) {
	history := wal.History{{Timeline: 2, LSN: 100}}
	for name, tt := range map[string]struct {
		node  topology.Node
		sight pool.Sight
		want  wal.Position // zero: it is to be learned on the primary
	}{
		"the cluster's":                      {topology.Node{Role: topology.RoleReplica, Timeline: 2}, pool.Sight{Recovering: true, At: 150}, wal.Position{Timeline: 2, LSN: 150}},
		"the one before, before the fork":    {topology.Node{Role: topology.RoleReplica, Timeline: 1}, pool.Sight{Recovering: true, At: 100}, wal.Position{Timeline: 1, LSN: 100}},
		"the one before, behind the fork":    {topology.Node{Role: topology.RoleReplica, Timeline: 1}, pool.Sight{Recovering: true, At: 101}, wal.Position{}},
		"none that is known":                 {topology.Node{Role: topology.RoleReplica}, pool.Sight{Recovering: true, At: 90}, wal.Position{}},
		"it has shown no position":           {topology.Node{Role: topology.RoleReplica, Timeline: 2}, pool.Sight{Recovering: true}, wal.Position{}},
		"it was promoted, nobody knew":       {topology.Node{Role: topology.RoleReplica, Timeline: 1}, pool.Sight{Timeline: 2, At: 120}, wal.Position{Timeline: 2, LSN: 120}},
		"it was promoted since":              {topology.Node{Role: topology.RolePrimary, Timeline: 2}, pool.Sight{Recovering: true, At: 90}, wal.Position{}},
		"the primary's":                      {topology.Node{Role: topology.RolePrimary, Timeline: 2}, pool.Sight{Timeline: 2, At: 150}, wal.Position{Timeline: 2, LSN: 150}},
		"that of a primary that was deposed": {topology.Node{Role: topology.RolePrimary, Timeline: 1}, pool.Sight{Timeline: 1, At: 150}, wal.Position{Timeline: 1, LSN: 150}},
	} {
		tt.node.Name = "n1"
		c, session := &Cluster{}, NewSession()
		c.routes.Store(&routes{view: &topology.View{SystemID: 7, Timeline: 2, History: history, Nodes: []topology.Node{tt.node}}})
		c.sighted(&node{name: "n1"}, session, &tt.sight)
		got := session.Token()
		if at := (wal.Position{Timeline: got.Timeline, LSN: got.LSN}); at != tt.want {
			t.Errorf("%s: the session has seen %v, want %v", name, at, tt.want)
		}
		if _, blind := session.blind(); blind != (tt.want == wal.Position{}) {
			t.Errorf("%s: the session is blind: %t", name, blind)
		}
	}
}
