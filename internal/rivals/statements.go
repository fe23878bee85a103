package rivals

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Schema holds the one table that the statements are about.
const Schema = "helios_bench"

// The statements. Ids are the numbers from 1.
const (
	readSQL  = `SELECT id, name FROM helios_bench.users WHERE id = $1`
	listSQL  = `SELECT id, name FROM helios_bench.users ORDER BY id LIMIT 100`
	listRows = 100
	writeSQL = `UPDATE helios_bench.users SET name = $1 WHERE id = $2`

	// CreateSQL makes the table, FillSQL its rows, as many as its argument says.
	// TouchSQL writes a row without changing it.
	CreateSQL = `CREATE TABLE helios_bench.users (id int PRIMARY KEY, name text NOT NULL) WITH (fillfactor = 50)`
	FillSQL   = `INSERT INTO helios_bench.users SELECT i, 'Ada Lovelace' FROM generate_series(1, $1::int) i`
	TouchSQL  = `UPDATE helios_bench.users SET name = name WHERE id = $1`
)

// An Operation does something once. i says on which row: the same for all who
// are compared.
type Operation func(ctx context.Context, i int) error

// Operations are what a driver can be asked to do. Each fails if what comes
// back is not what it should be.
type Operations struct {
	Read        Operation // one row by its id
	List        Operation // a hundred rows
	Write       Operation // one row by its id
	Transaction Operation // a write between BEGIN and COMMIT
}

// ids spreads the rows so that clients at work at the same time rarely meet.
type ids int

func (n ids) of(i int) int { return 1 + i*7919%int(n) }

// name is what a write writes.
const name = "Grace Hopper"

// checkRow says whether the row is the one that was asked for.
func checkRow(asked, id int, name string) error {
	if id != asked || name == "" {
		return fmt.Errorf("asked for the row of %d, got that of %d with the name %q", asked, id, name)
	}
	return nil
}

// checkCount says whether as many rows were concerned as should be.
func checkCount(got, want int64) error {
	if got != want {
		return fmt.Errorf("%d rows, want %d", got, want)
	}
	return nil
}

// onDB has a database/sql driver do it.
type onDB struct {
	db *sql.DB
	ids
}

func (o onDB) operations() Operations {
	return Operations{Read: o.read, List: o.list, Write: o.write, Transaction: o.transaction}
}

func (o onDB) read(ctx context.Context, i int) error {
	var id int
	var name string
	if err := o.db.QueryRowContext(ctx, readSQL, o.of(i)).Scan(&id, &name); err != nil {
		return err
	}
	return checkRow(o.of(i), id, name)
}

// list is not shared with pgx's rows: through an interface database/sql would
// allocate more than it does.
func (o onDB) list(ctx context.Context, _ int) error {
	rows, err := o.db.QueryContext(ctx, listSQL)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // what it would say, Err says
	n := int64(0)
	for ; rows.Next(); n++ {
		var id int
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), checkCount(n, listRows))
}

func (o onDB) write(ctx context.Context, i int) error { return o.update(ctx, o.db, i) }

func (o onDB) transaction(ctx context.Context, i int) error {
	tx, err := o.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := o.update(ctx, tx, i); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// execer is a *sql.DB or a *sql.Tx.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (o onDB) update(ctx context.Context, on execer, i int) error {
	result, err := on.ExecContext(ctx, writeSQL, name, o.of(i))
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	return errors.Join(err, checkCount(n, 1))
}

// onPool has pgx do it with its own pool.
type onPool struct {
	pool *pgxpool.Pool
	ids
}

func (o onPool) operations() Operations {
	return Operations{Read: o.read, List: o.list, Write: o.write, Transaction: o.transaction}
}

func (o onPool) read(ctx context.Context, i int) error {
	var id int
	var name string
	if err := o.pool.QueryRow(ctx, readSQL, o.of(i)).Scan(&id, &name); err != nil {
		return err
	}
	return checkRow(o.of(i), id, name)
}

func (o onPool) list(ctx context.Context, _ int) error {
	rows, err := o.pool.Query(ctx, listSQL)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := int64(0)
	for ; rows.Next(); n++ {
		var id int
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
	}
	return errors.Join(rows.Err(), checkCount(n, listRows))
}

func (o onPool) write(ctx context.Context, i int) error { return o.update(ctx, o.pool, i) }

func (o onPool) transaction(ctx context.Context, i int) error {
	return pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error { return o.update(ctx, tx, i) })
}

// pgxExecer is a pool or a transaction.
type pgxExecer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func (o onPool) update(ctx context.Context, on pgxExecer, i int) error {
	tag, err := on.Exec(ctx, writeSQL, name, o.of(i))
	if err != nil {
		return err
	}
	return checkCount(tag.RowsAffected(), 1)
}
