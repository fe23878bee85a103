package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// relaySettings names the environment variable that makes this program a relay
// instead of a run of tests.
const relaySettings = "HELIOS_TEST_RELAY"

// processSettings are what a relay in a process of its own is told.
type processSettings struct {
	Name, Source, Listen string
	Buffer               int64
	Acknowledge          relay.Policy
	Spool                string
}

// beRelay is the life of such a process, and returns what to exit with. It ends
// with its standard input, so that it does not outlive the tests.
func beRelay(settings string) int {
	if err := relayUntilEOF(settings); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		return 1
	}
	return 0
}

func relayUntilEOF(settings string) error {
	var s processSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	cfg := relay.DefaultConfig()
	cfg.Name, cfg.BufferSize, cfg.Acknowledge, cfg.SpoolDir = s.Name, s.Buffer, s.Acknowledge, s.Spool
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	if cfg.Source, err = relay.ParseSource(s.Source); err != nil {
		return err
	}
	r, err := relay.New(cfg)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", s.Listen)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		io.Copy(io.Discard, os.Stdin) // ends with the parent
	}()
	if err := r.Run(ctx, listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// A relayProcess is a relay in a process of its own, which can be killed.
type relayProcess struct {
	t        testing.TB
	settings processSettings
	port     int
	cmd      *osexec.Cmd
	stdin    io.Closer
}

// startRelayProcess is startRelay with a process.
func startRelayProcess(t testing.TB, name, source string, edit ...func(*processSettings)) *relayProcess {
	t.Helper()
	port, err := pgtest.TakePort(t.Context())
	pgtest.OK(t, err)
	r := &relayProcess{t: t, port: port, settings: processSettings{
		Name: name, Source: source, Listen: fmt.Sprintf("127.0.0.1:%d", port), Buffer: 64 << 20,
	}}
	for _, e := range edit {
		e(&r.settings)
	}
	t.Cleanup(func() { pgtest.GivePort(port) })
	t.Cleanup(r.kill)
	r.start()
	return r
}

func (r *relayProcess) start() {
	r.t.Helper()
	settings, err := json.Marshal(r.settings)
	pgtest.OK(r.t, err)
	r.cmd = osexec.Command(os.Args[0]) // kill ends it
	r.cmd.Env = append(os.Environ(), relaySettings+"="+string(settings))
	r.cmd.Stderr = lineOutput{r.t, r.settings.Name}
	r.stdin, err = r.cmd.StdinPipe()
	pgtest.OK(r.t, err)
	pgtest.OK(r.t, r.cmd.Start())
}

// stop ends the relay in order.
func (r *relayProcess) stop() {
	r.t.Helper()
	pgtest.OK(r.t, r.stdin.Close())
	pgtest.OK(r.t, r.cmd.Wait())
	r.cmd = nil
}

// kill ends the relay as kill -9 does, if it runs.
func (r *relayProcess) kill() {
	if r.cmd == nil {
		return
	}
	r.cmd.Process.Kill() // it has ended by itself
	r.cmd.Wait()         // it was killed
	r.cmd = nil
}

func (r *relayProcess) conninfo(name string) string { return relayConninfo(r.port, name) }

// lineOutput writes what a process says where the test's own lines go.
type lineOutput struct {
	t    testing.TB
	name string
}

func (o lineOutput) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		o.t.Logf("%s: %s", o.name, bytes.TrimSpace(line))
	}
	return len(p), nil
}
