package integration_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	_ "github.com/heliosdb/helios/internal/pgtest/container" // servers for machines without PostgreSQL
)

// major is the major version of the servers, such as 15: stories say where an
// older one cannot do something.
var major int

// TestMain says which PostgreSQL the stories are told with.
func TestMain(m *testing.M) {
	if settings := os.Getenv(relaySettings); settings != "" {
		os.Exit(beRelay(settings))
	}
	if flags := os.Getenv(companionFlags); flags != "" {
		os.Exit(beCompanion(flags))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	err := meetServers(ctx)
	cancel()
	if err != nil {
		fmt.Println("PostgreSQL: none:", err)
	}
	os.Exit(m.Run())
}

// meetServers starts a server to ask what it is.
func meetServers(ctx context.Context) (err error) {
	c, err := pgtest.Start(ctx, pgtest.Options{})
	if err != nil {
		return err
	}
	defer func() {
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	version, err := pgtest.Value[string](ctx, c.Primary(), "SELECT version()")
	if err != nil {
		return err
	}
	how := ""
	if c.TLS() != nil {
		how = ", spoken to over TLS"
	}
	fmt.Println("PostgreSQL:", version+how)
	major, err = pgtest.Value[int](ctx, c.Primary(), "SELECT current_setting('server_version_num')::int / 10000")
	return err
}
