package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// What a program writes travels in a transaction block of the driver's own, and
// arrives as it always did.
func TestArgumentsAreStoredAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	exec(t, ctx, d.ours, specialTypes)
	byType := map[string][]argument{}
	for _, a := range arguments() {
		for typ := range strings.FieldsSeq(a.types) {
			byType[typ] = append(byType[typ], a)
		}
	}
	for typ, all := range byType {
		s := stored{d.keep(t, ctx, "ours", d.ours, typ), d.keep(t, ctx, "theirs", d.theirs, typ)}
		for _, a := range all {
			s.same(t, ctx, typ, a)
		}
		s.mustHoldTheSame(t, ctx, typ)
	}
}

// stored are tables, one for each driver, that hold values of one type.
type stored struct{ ours, theirs keeper }

// keeper writes values into a table through one driver.
type keeper struct {
	db       *sql.DB
	insert   string
	prepared *sql.Stmt
	table    string
}

// keep makes a table for values of a type and the statement that fills it.
func (d drivers) keep(t *testing.T, ctx context.Context, owner string, db *sql.DB, typ string) keeper {
	t.Helper()
	k := keeper{db: db, table: fmt.Sprintf("%q", owner+" "+strings.ReplaceAll(typ, `"`, ""))}
	exec(t, ctx, db, "CREATE TABLE "+k.table+" (id int GENERATED ALWAYS AS IDENTITY, v "+typ+")")
	k.insert = "INSERT INTO " + k.table + " (v) VALUES ($1)"
	var err error
	k.prepared, err = db.PrepareContext(ctx, k.insert)
	pgtest.OK(t, err)
	t.Cleanup(func() { k.prepared.Close() })
	return k
}

// write stores an argument in different ways, and tells what became of each.
func (k keeper) write(ctx context.Context, a argument) (problems []string) {
	result := func(r sql.Result, err error) {
		if err != nil {
			problems = append(problems, strings.ReplaceAll(problem(err), k.table, "the table"))
			return
		}
		affected, err := r.RowsAffected()
		problems = append(problems, fmt.Sprint(affected, " ", problem(err)))
	}
	result(k.db.ExecContext(ctx, k.insert, a.value))
	result(k.prepared.ExecContext(ctx, a.value))
	return problems
}

// same writes an argument through both drivers.
func (s stored) same(t *testing.T, ctx context.Context, typ string, a argument) {
	t.Helper()
	if got, want := s.ours.write(ctx, a), s.theirs.write(ctx, a); !same(got, want) {
		t.Errorf("%s as %s: %q, stdlib has %q", a.name, typ, got, want)
	}
}

// mustHoldTheSame complains if the tables of a type differ.
func (s stored) mustHoldTheSame(t *testing.T, ctx context.Context, typ string) {
	t.Helper()
	all := "SELECT coalesce(array_agg(v::text ORDER BY id)::text, 'nothing') FROM "
	got, want := value[string](t, ctx, s.ours.db, all+s.ours.table), value[string](t, ctx, s.theirs.db, all+s.theirs.table)
	if got != want {
		t.Errorf("%s: stored are\n%s, through stdlib\n%s", typ, got, want)
	}
}
