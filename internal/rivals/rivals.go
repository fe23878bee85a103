package rivals

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/heliosdb/helios"
)

// A Driver is one that is compared.
type Driver struct {
	Name string
	Operations
	Cluster *helios.Cluster // of helios; nil for the others
	Close   func() error
}

// Names of the drivers.
const (
	NameHelios = "helios"
	NameStdlib = "stdlib"
	NamePool   = "pgxpool"
)

// Options say where the drivers go, and what they may use.
type Options struct {
	Config  *helios.Config    // not changed
	Primary helios.Host       // where pgx goes
	Conns   int               // connections to a node, at most
	Clients int               // goroutines at work at once: as many sessions are kept
	Rows    int               // of the table
	Dial    pgconn.DialFunc   // nil for the network
	Lookup  pgconn.LookupFunc // nil for the resolver
}

// Helios opens helios. change, which may be nil, changes its configuration.
func (o *Options) Helios(change func(*helios.Config)) (*Driver, error) {
	cfg := o.Config.Clone()
	cfg.PoolMaxConns, cfg.MaxDials = o.Conns, o.Conns
	if change != nil {
		change(cfg)
	}
	var options []helios.ClusterOption
	if o.Dial != nil {
		options = append(options, helios.WithDialFunc(o.Dial))
	}
	if o.Lookup != nil {
		options = append(options, helios.WithLookupFunc(o.Lookup))
	}
	connector, err := helios.NewConnector(cfg, options...)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(o.Clients)
	return &Driver{Name: NameHelios, Operations: onDB{db, ids(o.Rows)}.operations(), Cluster: connector.Cluster(), Close: db.Close}, nil
}

// Stdlib opens pgx under database/sql.
func (o *Options) Stdlib() (*Driver, error) {
	cfg, err := o.pgx()
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(o.Conns)
	db.SetMaxIdleConns(o.Conns)
	return &Driver{Name: NameStdlib, Operations: onDB{db, ids(o.Rows)}.operations(), Close: db.Close}, nil
}

// Pool opens pgx with its own pool.
func (o *Options) Pool(ctx context.Context) (*Driver, error) {
	conn, err := o.pgx()
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig("") // a pool takes no other
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig, cfg.MaxConns = conn, int32(o.Conns)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Driver{Name: NamePool, Operations: onPool{pool, ids(o.Rows)}.operations(), Close: func() error {
		pool.Close()
		return nil
	}}, nil
}

// pgx returns how pgx connects to the primary.
func (o *Options) pgx() (*pgx.ConnConfig, error) {
	cfg, err := o.Config.ConnConfig(o.Primary)
	if err != nil {
		return nil, fmt.Errorf("pgx: %w", err)
	}
	if o.Dial != nil {
		cfg.DialFunc = o.Dial
	}
	if o.Lookup != nil {
		cfg.LookupFunc = o.Lookup
	}
	return cfg, nil
}
