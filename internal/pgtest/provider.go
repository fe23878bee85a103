package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/heliosdb/helios/internal/pgctl"
)

// ErrUnavailable means that there is no PostgreSQL to make clusters of.
var ErrUnavailable = errors.New("no PostgreSQL for tests: run \"make setup\", or name a directory of programs in HELIOS_PG_BIN")

// A Provider makes the servers of clusters.
type Provider interface {
	// Available returns why there can be no servers; nil if there can.
	Available(ctx context.Context) error
	// Fleet begins a cluster.
	Fleet(ctx context.Context) (Fleet, error)
}

// A Fleet is the servers of one cluster. Its methods are safe for concurrent use.
type Fleet interface {
	// Launch makes and starts a server that accepts superusers without password,
	// unless the spec has TLS.
	Launch(ctx context.Context, spec ServerSpec) (Server, error)
	// Close removes the servers and all they left.
	Close() error
}

// ServerSpec says what kind of server to launch.
type ServerSpec struct {
	Name     string
	Settings map[string]string // of postgresql.conf
	Upstream Server            // the server to replicate from; nil makes a primary
	Foreign  bool              // of a cluster whose system identifier differs from that of those that are not
	TLS      *TLS              // what clients have to speak; its Settings give way to those above. nil if they must not
}

// A Server is one PostgreSQL server of a fleet. A provider that cannot do what
// is asked returns an error that says so.
type Server interface {
	Addr() string                                               // host:port for this process
	Conninfo(applicationName string) string                     // for other servers of the fleet, as a superuser
	Start(ctx context.Context) error                            // returns when it accepts connections
	Stop(ctx context.Context, mode pgctl.StopMode) error        // returns when it has stopped
	Kill() error                                                // as the crash of its machine
	Freeze() error                                              // all processes stand still
	Thaw() error                                                // they go on
	Promote(ctx context.Context) error                          // returns when it takes writes
	Configure(ctx context.Context, set map[string]string) error // in force on return; if stopped, from the next start on
	Rejoin(ctx context.Context, upstream Server) error          // becomes a running replica, whatever it was
	Log() (string, error)                                       // what it wrote, at least the end of it
}

// providers are those that Register was given.
var providers = struct {
	mu     sync.Mutex
	byName map[string]Provider // guarded by mu
}{byName: map[string]Provider{"local": localProvider{}}}

// Register makes a provider known under a name that $HELIOS_TEST_POSTGRES may
// hold. It is called while the program starts.
func Register(name string, p Provider) {
	providers.mu.Lock()
	defer providers.mu.Unlock()
	providers.byName[name] = p
}

// chosenProvider returns what $HELIOS_TEST_POSTGRES names. The error is
// [ErrUnavailable] if this machine has none of what was to be tried.
func chosenProvider(ctx context.Context) (Provider, error) {
	switch choice := os.Getenv("HELIOS_TEST_POSTGRES"); choice {
	case "", "auto":
		return firstAvailable(ctx, "local", "docker")
	case "local", "docker":
		return firstAvailable(ctx, choice)
	default:
		return nil, fmt.Errorf("pgtest: HELIOS_TEST_POSTGRES=%s: want local, docker or auto", choice)
	}
}

func firstAvailable(ctx context.Context, names ...string) (Provider, error) {
	var reasons []error
	for _, name := range names {
		providers.mu.Lock()
		p, known := providers.byName[name]
		providers.mu.Unlock()
		if !known {
			reasons = append(reasons, fmt.Errorf("%s: not linked into this program", name))
			continue
		}
		err := p.Available(ctx)
		if err == nil {
			return p, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", name, err))
	}
	return nil, fmt.Errorf("pgtest: %w (%w)", ErrUnavailable, joinLine(reasons))
}

// joinLine joins errors into one line.
func joinLine(errs []error) error {
	err := errs[0]
	for _, next := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, next)
	}
	return err
}
