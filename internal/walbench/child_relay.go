package walbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// relayRole is one relay in a process of its own. Its first request says what it
// is to be; every further one asks for its status.
type relayRole struct {
	relay   *relay.Relay
	stop    context.CancelFunc
	running sync.WaitGroup
	profile func()
	failed  error // guarded by running
}

// relayRequest says what relay is wanted.
type relayRequest struct {
	Name, Source, Listen string
	Buffer               int64
	Raw                  bool // without LZ4
}

// answer implements role.
func (r *relayRole) answer(ctx context.Context, request json.RawMessage) (any, error) {
	if r.relay != nil {
		return r.relay.Status(), nil
	}
	var want relayRequest
	if err := json.Unmarshal(request, &want); err != nil {
		return nil, err
	}
	return nil, r.start(ctx, want)
}

// forever is a timeout that does not strike while a process stands still.
const forever = 12 * time.Hour

func (r *relayRole) start(ctx context.Context, want relayRequest) error {
	cfg := relay.DefaultConfig()
	var err error
	if cfg.Source, err = relay.ParseSource(want.Source); err != nil {
		return err
	}
	cfg.Name, cfg.BufferSize, cfg.Compression = want.Name, want.Buffer, !want.Raw
	cfg.SenderTimeout, cfg.SourceTimeout = forever, forever
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if r.relay, err = relay.New(cfg); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", want.Listen)
	if err != nil {
		return err
	}
	if r.profile, err = startProfile(want.Name); err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, r.stop = context.WithCancel(ctx)
	r.running.Go(func() {
		if err := r.relay.Run(ctx, listener); ctx.Err() == nil {
			r.failed = err
		}
	})
	return nil
}

// close implements role.
func (r *relayRole) close() error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	r.running.Wait()
	r.profile()
	return r.failed
}

// A relayProcess is a relay that this process has started.
type relayProcess struct {
	*child
	port int
}

// startRelay starts a relay of source and returns when it has caught up.
func startRelay(ctx context.Context, want relayRequest) (_ *relayProcess, err error) {
	port, err := pgtest.TakePort(ctx)
	if err != nil {
		return nil, err
	}
	c, err := startChild(want.Name, "relay")
	if err != nil {
		return nil, err
	}
	r := &relayProcess{child: c, port: port}
	want.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if err := r.ask(ctx, want, nil); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if err := r.await(ctx, func(s relay.Status) bool { return s.Connected }); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// conninfo is how a standby, a client or another relay connects to the relay.
func (r *relayProcess) conninfo(name string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s application_name=%s sslmode=disable", r.port, pgctl.Superuser, name)
}

// addr is where the relay listens.
func (r *relayProcess) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// portOf returns the port of host:port.
func portOf(addr string) (int, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// status asks the relay how it is.
func (r *relayProcess) status(ctx context.Context) (relay.Status, error) {
	var s relay.Status
	err := r.ask(ctx, struct{}{}, &s)
	return s, err
}

// await returns when the relay's status is as it should be.
func (r *relayProcess) await(ctx context.Context, ready func(relay.Status) bool) error {
	return poll(ctx, func() (bool, error) {
		s, err := r.status(ctx)
		return err == nil && ready(s), err
	})
}

// awaitHead returns when the relay has got to at.
func (r *relayProcess) awaitHead(ctx context.Context, at wal.LSN) error {
	return r.await(ctx, func(s relay.Status) bool { return s.Head >= at })
}

// pollInterval is how often something is looked at that tells nothing of itself.
const pollInterval = 2 * time.Millisecond

// poll asks until the answer is yes.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if yes, err := done(); yes || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
