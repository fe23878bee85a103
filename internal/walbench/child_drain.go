package walbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// drainRole is some clients that speak the protocol of a walreceiver and throw
// away what they are sent.
type drainRole struct {
	clients []*drainClient
	running sync.WaitGroup
}

// drainRequest is what clients are to do. One of its parts is set.
type drainRequest struct {
	Open     *drainOpen
	Start    bool    // begins to stream
	Await    wal.LSN // until every client has got there
	Arrivals bool    // what has arrived since the last time
	Close    bool    // leaves
}

// drainOpen says which clients are wanted.
type drainOpen struct {
	Source string
	Count  int
	From   wal.LSN // 0: where the server is
	Every  int     // bytes between two acknowledgements; 0 for one after each message
	Note   bool    // of each message, when it came
}

// arrival says when the WAL up to At was there.
type arrival struct {
	At   wal.LSN
	When int64 // nanoseconds of Unix time
}

// drainClient is one of them.
type drainClient struct {
	*replication.Client
	open drainOpen
	id   replication.Identity
	buf  []byte
	at   atomic.Uint64

	mu       sync.Mutex
	arrivals []arrival // guarded by mu
	err      error     // guarded by mu; why it no longer reads
}

// answer implements role.
func (d *drainRole) answer(ctx context.Context, request json.RawMessage) (any, error) {
	var want drainRequest
	if err := json.Unmarshal(request, &want); err != nil {
		return nil, err
	}
	switch {
	case want.Open != nil:
		return nil, d.open(ctx, *want.Open)
	case want.Start:
		d.start(ctx)
		return nil, nil
	case want.Await != 0:
		return nil, d.await(ctx, want.Await)
	case want.Arrivals:
		return d.clients[0].took(), nil
	default:
		return nil, d.close()
	}
}

// open connects the clients, some at once.
func (d *drainRole) open(ctx context.Context, o drainOpen) error {
	cfg, err := pgconn.ParseConfig(o.Source)
	if err != nil {
		return err
	}
	const largest, total = 128 << 10, 16 << 20
	d.clients = make([]*drainClient, o.Count)
	errs := make([]error, o.Count)
	slots := make(chan struct{}, 16)
	var connecting sync.WaitGroup
	for i := range d.clients {
		connecting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			c := &drainClient{open: o, buf: make([]byte, min(largest, max(total/o.Count, 4<<10)))}
			if c.Client, errs[i] = replication.Connect(ctx, cfg); errs[i] != nil {
				return
			}
			d.clients[i] = c
			c.id, errs[i] = c.Identify(ctx)
		})
	}
	connecting.Wait()
	return errors.Join(errs...)
}

// start has all clients stream.
func (d *drainRole) start(ctx context.Context) {
	for _, c := range d.clients {
		d.running.Go(func() { c.end(c.run(ctx)) })
	}
}

// run streams until the connection ends.
func (c *drainClient) run(ctx context.Context) error {
	from := c.open.From
	if from == 0 {
		from = c.id.Flush
	}
	if _, _, err := c.Start(ctx, "", from, c.id.Timeline, ""); err != nil {
		return err
	}
	c.at.Store(uint64(from))
	told := from
	for {
		e, err := c.Next()
		if err != nil {
			return err
		}
		switch e.Kind {
		case replication.KindData:
			if err := c.discard(e.Size); err != nil {
				return err
			}
			at := e.Start + wal.LSN(e.Size) //nolint:gosec // positive
			c.note(at)
			c.at.Store(uint64(at))
			if at < told+wal.LSN(c.open.Every) { //nolint:gosec // positive
				continue
			}
			told = at
		case replication.KindKeepalive:
			if !e.Reply {
				continue
			}
		default:
			return fmt.Errorf("the stream ended: %+v", e)
		}
		at := wal.LSN(c.at.Load())
		if err := c.SendStatus(replication.Status{Write: at, Flush: at, Apply: at, SentAt: time.Now()}); err != nil {
			return err
		}
	}
}

func (c *drainClient) discard(size int) error {
	for size > 0 {
		n, err := c.Read(c.buf[:min(size, len(c.buf))])
		if err != nil {
			return err
		}
		size -= n
	}
	return nil
}

func (c *drainClient) note(at wal.LSN) {
	if !c.open.Note {
		return
	}
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrivals = append(c.arrivals, arrival{at, now})
}

func (c *drainClient) took() []arrival {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.arrivals
	c.arrivals = nil
	return of
}

func (c *drainClient) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *drainClient) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// await returns when every client has got to at.
func (d *drainRole) await(ctx context.Context, at wal.LSN) error {
	slow := d.clients
	return poll(ctx, func() (bool, error) {
		for len(slow) > 0 && slow[0].at.Load() >= uint64(at) {
			slow = slow[1:]
		}
		if len(slow) == 0 {
			return true, nil
		}
		return false, slow[0].failed()
	})
}

// close implements role.
func (d *drainRole) close() error {
	for _, c := range d.clients {
		if c != nil {
			c.Close() //nolint:errcheck // nothing is lost with it
		}
	}
	d.running.Wait()
	d.clients = nil
	return nil
}

// A drain is clients in a process of their own.
type drain struct{ *child }

// startDrain connects clients that do not stream yet.
func startDrain(ctx context.Context, o drainOpen) (*drain, error) {
	c, err := startChild("clients", "drain")
	if err != nil {
		return nil, err
	}
	d := &drain{c}
	if err := d.ask(ctx, drainRequest{Open: &o}, nil); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// start has the clients stream.
func (d *drain) start(ctx context.Context) error { return d.ask(ctx, drainRequest{Start: true}, nil) }

// await returns when all clients have got to at.
func (d *drain) await(ctx context.Context, at wal.LSN) error {
	return d.ask(ctx, drainRequest{Await: at}, nil)
}

// arrivals returns what has arrived at the first client since the last call.
func (d *drain) arrivals(ctx context.Context) ([]arrival, error) {
	var of []arrival
	err := d.ask(ctx, drainRequest{Arrivals: true}, &of)
	return of, err
}
