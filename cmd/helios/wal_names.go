package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/wal"
)

// forgetUnknown is how long a file is not asked for again that no relation had:
// it may belong to one whose transaction has not committed.
const forgetUnknown = time.Second

// catalog asks a server what relations are called. It holds one connection to
// each database that the log is about.
type catalog struct {
	config    *pgx.ConnConfig
	complain  func(error)          // called at most once for each database
	databases map[uint32]*pgx.Conn // by oid; nil if there is no way in
	names     map[wal.RelFile]string
	unknown   map[wal.RelFile]time.Time // when it was asked last
	first     *pgx.Conn                 // to the database of the DSN; nil if there is no way in
}

// newCatalog returns the catalog of a node. Where it cannot be asked, relations
// have no names, and complain gets to know why.
func newCatalog(ctx context.Context, cfg *helios.Config, host helios.Host, complain func(error)) *catalog {
	c := &catalog{complain: complain, databases: map[uint32]*pgx.Conn{}, names: map[wal.RelFile]string{}, unknown: map[wal.RelFile]time.Time{}}
	var err error
	if c.config, err = cfg.ConnConfig(host); err == nil {
		c.first, err = pgx.ConnectConfig(ctx, c.config)
	}
	if err != nil {
		complain(plain(err))
	}
	return c
}

// Close ends the connections.
func (c *catalog) Close() {
	c.databases[0] = c.first
	for _, conn := range c.databases {
		if conn != nil {
			conn.Close(context.Background()) //nolint:errcheck // nothing was written
		}
	}
}

// Name implements relationNames.
func (c *catalog) Name(ctx context.Context, file wal.RelFile) string {
	if name, ok := c.names[file]; ok {
		return name
	}
	if c.first == nil || time.Since(c.unknown[file]) < forgetUnknown {
		return ""
	}
	conn, ok := c.databases[file.Database]
	if !ok {
		var err error
		if conn, err = c.connect(ctx, file.Database); err != nil {
			c.complain(fmt.Errorf("database %d: %w", file.Database, plain(err)))
		}
		c.databases[file.Database] = conn
	}
	name := ""
	if conn != nil {
		name = c.ask(ctx, conn, file)
	}
	if name == "" {
		c.unknown[file] = time.Now()
		return ""
	}
	c.names[file] = name
	return name
}

// connect opens a connection to a database; that of the DSN will do for what all
// databases share.
func (c *catalog) connect(ctx context.Context, oid uint32) (*pgx.Conn, error) {
	if oid == 0 {
		return c.first, nil
	}
	var name string
	var own bool
	err := c.first.QueryRow(ctx, "SELECT datname, datname = current_database() FROM pg_catalog.pg_database WHERE oid = $1 AND datallowconn", oid).Scan(&name, &own)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil //nolint:nilnil // it was dropped, or lets nobody in
	case err != nil:
		return nil, err
	case own:
		return c.first, nil
	}
	config := c.config.Copy()
	config.Database = name
	return pgx.ConnectConfig(ctx, config)
}

// ask returns the name of the relation that has a file; "" if none has.
func (*catalog) ask(ctx context.Context, conn *pgx.Conn, file wal.RelFile) (name string) {
	const query = `SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = pg_catalog.pg_filenode_relation($1, $2)`
	if err := conn.QueryRow(ctx, query, file.Tablespace, file.Number).Scan(&name); err != nil {
		return ""
	}
	return name
}
