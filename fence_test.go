package helios

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
)

// askedRole is how a server that does not report its role is asked for it.
const askedRole = `~^(ROLLBACK; )?SELECT pg_catalog\.pg_is_in_recovery\(\), pg_catalog\.current_setting\('default`

// Whoever loses patience with a fenced primary is told that the time is over, at
// whatever moment it is: while the server is asked whether it is fenced, too.
func TestTimeThatEndsAtAFencedPrimaryIsToldAsSuch(t *testing.T) {
	for _, version := range []string{"15.18", "13.16"} {
		for limit := trip / 4; limit < 6*trip; limit += trip / 2 {
			t.Run(fmt.Sprint(version, " ", limit), func(t *testing.T) {
				playOn(t, version, 2, rare, func(s *stage) {
					s.exec(s.Context(), s.db, insert)
					s.Node(1).SetReadOnly(true)
					ctx, cancel := context.WithTimeout(s.Context(), limit)
					defer cancel()
					_, err := s.db.ExecContext(ctx, insert)
					s.wantError("Exec", err, context.DeadlineExceeded)
					if _, bare := err.(*pgconn.PgError); bare { //nolint:errorlint // that is what it must not be
						s.Errorf("Exec = %v, bare", err)
					}
					s.wantExecuted(insert, "n1")
				})
			})
		}
	}
}

func TestAFencedPrimaryThatGoesBeforeItSaysSoIsNotTheEndOfAWrite(t *testing.T) {
	for name, write := range map[string]func(s *stage){
		"alone":       func(s *stage) { s.exec(s.Context(), s.db, insert) },
		"transaction": func(s *stage) { s.transact(insert) },
	} {
		t.Run(name, func(t *testing.T) {
			playOn(t, "13.16", 2, rare, func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.Node(1).SetReadOnly(true)
				s.Node(1).Inject(askedRole, 1, pgfake.Fault{Then: pgfake.Cut})
				timer := time.AfterFunc(time.Second, func() { s.Promote(s.Node(2)) })
				defer timer.Stop()
				write(s)
				s.wantExecuted(insert, "n1", "n2")
			})
		})
	}
}

// A server that does not report its role is asked after it has refused, and a
// fence may be lifted at any moment.
func TestAFenceThatIsLiftedBeforeItIsSeenLetsWritesGoOn(t *testing.T) {
	for after := time.Duration(0); after < 4*trip; after += trip / 4 {
		t.Run(after.String(), func(t *testing.T) {
			playOn(t, "13.16", 2, rare, func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.Node(1).SetReadOnly(true)
				timer := time.AfterFunc(after, func() { s.Node(1).SetReadOnly(false) })
				defer timer.Stop()
				s.exec(s.Context(), s.db, insert)
				s.wantExecuted(insert, "n1", "n1")
			})
		})
	}
}

// A trigger may make its transaction read-only. The driver cannot see that, and
// takes it for a fence once.
func TestAWriteThatATriggerForbidsIsRefusedSoon(t *testing.T) {
	for _, version := range []string{"15.18", "13.16"} {
		t.Run(version, func(t *testing.T) {
			playOn(t, version, 2, rare, func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.Node(1).Inject(insert, 0, pgfake.Fail(codeReadOnly, "cannot execute INSERT in a read-only transaction"))
				_, err := s.db.Exec(insert)
				s.wantCode("Exec", err, codeReadOnly)
				s.wantTried(insert, 3)
				s.wantHealthy()
			})
		})
	}
}

// A function may do anything, also make its transaction read-only, but nothing of
// it is left when it was refused. A procedure may have committed on its way.
func TestAFunctionThatAFencedPrimaryRefusesRunsOnTheNextOneAndAProcedureDoesNot(t *testing.T) {
	const function, procedure = "SELECT add_one(1)", "CALL add(1)"
	for _, version := range []string{"15.18", "13.16"} {
		t.Run(version, func(t *testing.T) {
			playOn(t, version, 2, rare, func(s *stage) {
				for _, n := range s.Nodes() {
					n.Handle(function, pgfake.Reply{Writes: true})
					n.Handle(procedure, pgfake.Reply{Writes: true})
				}
				s.exec(s.Context(), s.db, insert)
				s.Node(1).SetReadOnly(true)
				_, err := s.db.Exec(procedure)
				s.wantCode("the procedure", err, codeReadOnly)
				timer := time.AfterFunc(time.Second, func() { s.Promote(s.Node(2)) })
				defer timer.Stop()
				s.exec(s.Context(), s.db, function)
				s.wantExecuted(function, "n2")
				s.exec(s.Context(), s.db, procedure)
				s.wantExecuted(procedure, "n2")
			})
		})
	}
}
