package helios

import (
	"context"
	"database/sql/driver"
)

// stmt is a prepared statement: a text. Each physical connection that executes
// it prepares it for itself and keeps it, so that it outlives sessions,
// connections and failovers.
type stmt struct {
	session *Conn
	sql     string
}

// What database/sql may ask of a statement.
var (
	_ driver.Stmt              = (*stmt)(nil)
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// ExecContext implements driver.StmtExecContext.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.session.ExecContext(ctx, s.sql, args)
}

// QueryContext implements driver.StmtQueryContext.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.session.QueryContext(ctx, s.sql, args)
}

// Exec implements driver.Stmt.
func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), numbered(args))
}

// Query implements driver.Stmt.
func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), numbered(args))
}

// numbered numbers args.
func numbered(args []driver.Value) []driver.NamedValue {
	all := make([]driver.NamedValue, len(args))
	for i, v := range args {
		all[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return all
}

// CheckNamedValue implements driver.NamedValueChecker as the session does.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error { return s.session.CheckNamedValue(v) }

// NumInput implements driver.Stmt: the server counts the parameters.
func (s *stmt) NumInput() int { return -1 }

// Close implements driver.Stmt. There is nothing to close: the connections that
// know the text keep it as long as they have room.
func (s *stmt) Close() error { return nil }
