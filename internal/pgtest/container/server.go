package container

import (
	"bytes"
	"context"
	_ "embed" // for the script that a container runs
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// script makes a data directory at a container's first start and then becomes
// the postmaster.
//
//go:embed server.sh
var script string

// serverPort is where every server listens inside of its container.
const serverPort = "5432/tcp"

// Directories inside of a container.
const (
	serverDir = "/tmp/helios" // the server's own
	filesDir  = "/helios"     // what it was given, for the server to copy
)

// pollInterval is how often a server is asked whether it is where it should be.
const pollInterval = 5 * time.Millisecond

// server is one container. It is safe for concurrent use once created.
type server struct {
	fleet *fleet
	spec  pgtest.ServerSpec
	port  int // on this machine; it stays over restarts
	host  string
	box   testcontainers.Container // nil before create
}

// create makes the container, starts it and returns when it accepts connections.
func (s *server) create(ctx context.Context, upstream pgtest.Server) error {
	env := map[string]string{"HELIOS_SETTINGS": configuration(s.spec)}
	if upstream != nil {
		env["HELIOS_UPSTREAM"] = upstream.Conninfo(s.spec.Name)
	}
	var files []testcontainers.ContainerFile
	if s.spec.TLS != nil {
		env["HELIOS_PASSWORD"] = s.spec.TLS.Password
		for name, content := range s.spec.TLS.Files {
			files = append(files, testcontainers.ContainerFile{
				Reader: strings.NewReader(content), ContainerFilePath: filesDir + "/" + name, FileMode: 0o644,
			})
		}
	}
	box, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{
		Started: true,
		ContainerRequest: testcontainers.ContainerRequest{
			Image:          s.fleet.image,
			Entrypoint:     []string{"/bin/sh", "-c", script},
			Env:            env,
			Files:          files,
			ExposedPorts:   []string{serverPort},
			Networks:       []string{s.fleet.net.Name},
			NetworkAliases: map[string][]string{s.fleet.net.Name: {s.spec.Name}},
			ConfigModifier: func(c *container.Config) { c.User = "postgres" },
			HostConfigModifier: func(h *container.HostConfig) {
				// The engine asks elsewhere for the name of a dead server, and a
				// promotion waits for the answer: nobody is there to ask, and
				// the wait is not the usual ten seconds.
				h.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
				h.DNSOptions = []string{"timeout:1", "attempts:1"}
				h.PortBindings = network.PortMap{
					network.MustParsePort(serverPort): {{HostIP: s.fleet.listen, HostPort: strconv.Itoa(s.port)}},
				}
			},
		},
	})
	s.box = box
	if err != nil {
		return err
	}
	if s.host, err = box.Host(ctx); err != nil {
		return err
	}
	return s.await(ctx)
}

// configuration returns the settings of a server as lines of postgresql.conf.
func configuration(spec pgtest.ServerSpec) string {
	settings := map[string]string{}
	maps.Copy(settings, spec.TLS.Settings(serverDir))
	maps.Copy(settings, spec.Settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.NewReplacer("'", "''", `\`, `\\`).Replace(settings[name]))
	}
	return b.String()
}

// Addr implements [pgtest.Server].
func (s *server) Addr() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// Conninfo implements [pgtest.Server].
func (s *server) Conninfo(applicationName string) string {
	return fmt.Sprintf("host=%s port=5432 user=%s dbname=postgres %s application_name=%s",
		s.spec.Name, pgctl.Superuser, s.spec.TLS.Conninfo(serverDir), applicationName)
}

// Start implements [pgtest.Server].
func (s *server) Start(ctx context.Context) error {
	if _, err := s.fleet.docker.ContainerStart(ctx, s.box.GetContainerID(), client.ContainerStartOptions{}); err != nil {
		return err
	}
	return s.await(ctx)
}

// await returns when the server accepts connections, or with the end of its log
// if it has ended instead.
func (s *server) await(ctx context.Context) error {
	for {
		conn, err := s.connect(ctx)
		if err == nil {
			return conn.Close(ctx)
		}
		if state, stateErr := s.box.State(ctx); stateErr == nil && !state.Running {
			text, logErr := s.Log()
			return errors.Join(fmt.Errorf("ended with code %d during its start; its log ends with:\n%s", state.ExitCode, text), logErr)
		}
		if pause(ctx) != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// pause waits for one interval, or returns why ctx ended.
func pause(ctx context.Context) error {
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *server) connect(ctx context.Context) (*pgx.Conn, error) {
	dir := ""
	if s.spec.TLS != nil {
		dir = filepath.Dir(s.spec.TLS.CAFile)
	}
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres %s",
		s.host, s.port, pgctl.Superuser, s.spec.TLS.Conninfo(dir)))
}

// Stop implements [pgtest.Server].
func (s *server) Stop(ctx context.Context, mode pgctl.StopMode) error {
	signal := map[pgctl.StopMode]string{pgctl.Smart: "SIGTERM", pgctl.Fast: "SIGINT", pgctl.Immediate: "SIGQUIT"}[mode]
	return s.end(ctx, signal)
}

// Kill implements [pgtest.Server].
func (s *server) Kill() error { return s.end(context.Background(), "SIGKILL") }

// end sends a signal to the postmaster, with which the kernel ends everything
// else in the container, and waits until it runs no longer.
func (s *server) end(ctx context.Context, signal string) error {
	id := s.box.GetContainerID()
	state, err := s.box.State(ctx)
	if err != nil || !state.Running {
		return err
	}
	if _, err := s.fleet.docker.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: signal}); err != nil {
		return err
	}
	ended := s.fleet.docker.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case err := <-ended.Error:
		return err
	case <-ended.Result:
		return nil
	}
}

// Freeze implements [pgtest.Server].
func (s *server) Freeze() error {
	_, err := s.fleet.docker.ContainerPause(context.Background(), s.box.GetContainerID(), client.ContainerPauseOptions{})
	return err
}

// Thaw implements [pgtest.Server].
func (s *server) Thaw() error {
	_, err := s.fleet.docker.ContainerUnpause(context.Background(), s.box.GetContainerID(), client.ContainerUnpauseOptions{})
	return err
}

// Promote implements [pgtest.Server].
func (s *server) Promote(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the statements' own errors tell more
	if _, err := conn.Exec(ctx, "SELECT pg_promote(wait => false) WHERE pg_is_in_recovery()"); err != nil {
		return err
	}
	for {
		var replica bool
		if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&replica); err != nil || !replica {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// Configure implements [pgtest.Server].
func (s *server) Configure(ctx context.Context, set map[string]string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return fmt.Errorf("only a running container can be configured: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // the statements' own errors tell more
	for name, value := range set {
		var statement string
		err := conn.QueryRow(ctx, "SELECT format('ALTER SYSTEM SET %I = %L', $1::text, $2::text)", name, value).Scan(&statement)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return reload(ctx, conn)
}

// reload makes the server read its settings and returns when it has.
func reload(ctx context.Context, conn *pgx.Conn) error {
	var before time.Time
	if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	for {
		var loaded bool
		if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time() > $1", before).Scan(&loaded); err != nil || loaded {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// Rejoin implements [pgtest.Server] by a new container.
func (s *server) Rejoin(ctx context.Context, upstream pgtest.Server) error {
	if err := s.remove(ctx); err != nil {
		return err
	}
	return s.create(ctx, upstream)
}

// remove deletes the container, running or not.
func (s *server) remove(ctx context.Context) error {
	if s.box == nil {
		return nil
	}
	_, err := s.fleet.docker.ContainerRemove(ctx, s.box.GetContainerID(), client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	return err
}

// logTail is how much of a server's log is shown, in bytes.
const logTail = 8 << 10

// Log implements [pgtest.Server] with the last few kilobytes.
func (s *server) Log() (string, error) {
	log, err := s.box.Logs(context.Background())
	if err != nil {
		return "", err
	}
	defer log.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(log)
	return string(bytes.TrimSpace(text[max(0, len(text)-logTail):])), err
}
