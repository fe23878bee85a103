package integration_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// relayEnv has this program run a relay, and no tests: see startRelayProcess.
const relayEnv = "HELIOS_TEST_RELAY"

// A relayOrder is what a relay in a process of its own is to do.
type relayOrder struct {
	Addr, Source, Name, SpoolDir string
	BufferSize                   int64
	Acknowledge                  relay.Policy
}

// A relayProcess is a relay that can be killed, and that has its memory for
// itself.
type relayProcess struct {
	t     testing.TB
	order relayOrder
	cmd   *osexec.Cmd
	held  io.Closer // the process ends when this is closed, or when this process does
}

// startRelayProcess runs a relay in a process of its own until the end of the
// test.
func startRelayProcess(t testing.TB, order relayOrder) *relayProcess {
	t.Helper()
	port, err := pgtest.TakePort(t.Context())
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.GivePort(port) })
	order.Addr = fmt.Sprintf("127.0.0.1:%d", port)
	p := &relayProcess{t: t, order: order}
	p.start()
	t.Cleanup(p.kill)
	return p
}

// start returns when the relay listens.
func (p *relayProcess) start() {
	p.t.Helper()
	text, err := json.Marshal(p.order)
	pgtest.OK(p.t, err)
	p.cmd = osexec.Command(os.Args[0]) //nolint:noctx // kill ends it
	p.cmd.Env = append(os.Environ(), relayEnv+"="+string(text))
	p.cmd.Stderr = testOutput{p.t}
	p.held, err = p.cmd.StdinPipe()
	pgtest.OK(p.t, err)
	out, err := p.cmd.StdoutPipe()
	pgtest.OK(p.t, err)
	pgtest.OK(p.t, p.cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "listening" {
		p.t.Fatalf("a relay in a process of its own says %q, %v", line, err)
	}
}

// kill ends the process as kill -9 does.
func (p *relayProcess) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it has ended already
	p.held.Close()       //nolint:errcheck // see above
	p.cmd.Wait()         //nolint:errcheck // it was killed
}

// conninfo is how a standby connects to the relay.
func (p *relayProcess) conninfo(name string) string {
	p.t.Helper()
	return conninfoOf(p.t, p.order.Addr, name)
}

// beRelay is what the process does.
func beRelay(text string) error {
	var order relayOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	cfg := relay.DefaultConfig()
	cfg.Name, cfg.Acknowledge, cfg.BufferSize, cfg.SpoolDir = order.Name, order.Acknowledge, order.BufferSize, order.SpoolDir
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	if cfg.Source, err = relay.ParseSource(order.Source); err != nil {
		return err
	}
	r, err := relay.New(cfg)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", order.Addr) //nolint:noctx // a local bind does not wait
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // its end is what is waited for
		cancel()
	}()
	fmt.Println("listening")
	return r.Run(ctx, listener)
}
