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

// TestMain says which PostgreSQL the stories are told with.
func TestMain(m *testing.M) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	version, err := serverVersion(ctx)
	cancel()
	if err != nil {
		fmt.Println("PostgreSQL: none:", err)
	} else {
		fmt.Println("PostgreSQL:", version)
	}
	os.Exit(m.Run())
}

// serverVersion starts a server to ask what it is.
func serverVersion(ctx context.Context) (version string, err error) {
	c, err := pgtest.Start(ctx, pgtest.Options{})
	if err != nil {
		return "", err
	}
	defer func() {
		if e := c.Close(); err == nil {
			err = e
		}
	}()
	return pgtest.Value[string](ctx, c.Primary(), "SELECT version()")
}
