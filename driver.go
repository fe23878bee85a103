package helios

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// The names under which the driver is registered. ent accepts any name that
// starts with "postgres".
const (
	driverName    = "helios"
	driverNameEnt = "postgres-helios"
)

func init() {
	sql.Register(driverName, Driver{})
	sql.Register(driverNameEnt, Driver{})
}

// Driver is the database/sql driver. [sql.Open] finds it as "helios", and as
// "postgres-helios" for libraries that go by the name.
type Driver struct {
	connector *Connector // whose Driver method gave this one; nil for the registered driver
}

// OpenConnector implements driver.DriverContext: it reads the DSN, once.
func (Driver) OpenConnector(dsn string) (driver.Connector, error) {
	cfg, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return NewConnector(cfg)
}

// Open implements driver.Driver. database/sql uses OpenConnector instead; a
// program that calls Open itself gets a cluster of its own for one session,
// closed with it.
func (d Driver) Open(dsn string) (driver.Conn, error) {
	c, err := d.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	conn, err := c.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	session := conn.(*Conn) //nolint:forcetypeassert // our Connector makes nothing else
	session.alone = true
	return session, nil
}

// Open opens a database handle for the cluster that dsn describes. Like
// [sql.Open] it does not connect yet; unlike it, it takes options.
func Open(dsn string, options ...ClusterOption) (*sql.DB, error) {
	cfg, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	connector, err := NewConnector(cfg, options...)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}
