package integration_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/topology/watch"
)

// inTheClear asks a server for the application names of all who came over the
// network without TLS.
const inTheClear = `SELECT coalesce(string_agg(application_name, ', '), '')
	FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE client_port > 0 AND state <> 'starting' AND NOT ssl`

// ofHelios asks a server for the application names of the driver's connections,
// of those that ask what the node is, too. PostgreSQL 18 shows backends that do not
// know yet who comes.
const ofHelios = `SELECT array_agg(DISTINCT application_name ORDER BY application_name)
	FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'pgtest' AND state <> 'starting'`

// With a DSN that demands TLS, every connection of the driver to every node is
// encrypted, through proxies and after a failover as well.
func TestEveryConnectionOfTheDriverIsEncrypted(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true, TLS: true})
	db := open(t, c, "application_name=shop", "probe_interval=100ms")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	encrypted := func(nodes []*pgtest.Node) {
		t.Helper()
		readers := startCrowd(t, db, 4)
		for _, n := range nodes {
			exec(t, ctx, db, "INSERT INTO t VALUES (1)")
			value[int](t, helios.Node(ctx, n.Addr()), db, "SELECT 1")
			names, err := pgtest.Value[[]string](ctx, n, ofHelios)
			pgtest.OK(t, err)
			if want := []string{watch.ApplicationName, "shop"}; !slices.Equal(names, want) {
				t.Errorf("%s has connections of %q, want %q", n.Name, names, want)
			}
			plain, err := pgtest.Value[string](ctx, n, inTheClear)
			pgtest.OK(t, err)
			if plain != "" {
				t.Errorf("%s has connections without TLS: %s", n.Name, plain)
			}
		}
		readers.stop(t)
	}
	awaitRoles(t, known, c.Primary(), 2)
	encrypted(c.Nodes)

	_, err := c.Failover(ctx)
	pgtest.OK(t, err)
	awaitRoles(t, known, c.Primary(), 1)
	encrypted(c.Nodes[1:])
}

// What goes to the server in front of TLS, and in front of a cancel request that
// comes without it (pqcomm.h).
var (
	requestTLS    = binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 80877103)
	requestCancel = binary.BigEndian.AppendUint32(nil, 80877102)
)

// Cancel requests come on connections of their own. What they carry would let
// anybody who listens end the session's statements: they are encrypted too.
func TestCancelRequestsAreEncrypted(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, TLS: true})
	for params, since := range map[string]int{
		"probe_interval=1s":           13,
		"max_protocol_version=latest": 13, // PostgreSQL 18 then has cancel keys of 256 bits
		"sslnegotiation=direct":       17,
	} {
		t.Run(params, func(t *testing.T) {
			if major < since {
				return // servers know nothing of it
			}
			var heard listener
			db, err := helios.Open(c.DSN("pool_max_conns=1", params), helios.WithDialFunc(heard.dial))
			pgtest.OK(t, err)
			defer db.Close()
			cancelOften(t, c, db)
			begun := heard.beginnings()
			if len(begun) < 7 { // a connection, a probe, and cancels
				t.Errorf("%d connections were made, want more", len(begun))
			}
			for _, sent := range begun {
				if params != "sslnegotiation=direct" {
					if !bytes.HasPrefix(sent, requestTLS) {
						t.Errorf("a connection began with % x, want a request for TLS", sent)
						continue
					}
					sent = sent[len(requestTLS):]
				}
				if !bytes.HasPrefix(sent, []byte{22, 3}) { // a record of the handshake
					t.Errorf("a connection went on with % x, want TLS", sent)
				}
				if bytes.Contains(sent, requestCancel) {
					t.Errorf("a cancel request was sent in the clear: % x", sent)
				}
			}
		})
	}
}

// cancelOften has statements run out of time, and sees that they end on the
// server and cost nothing but time.
func cancelOften(t *testing.T, c *pgtest.Cluster, db *sql.DB) {
	t.Helper()
	ctx := helios.Primary(pgtest.Context(t))
	pid := value[int](t, ctx, db, "SELECT pg_backend_pid()")
	for range 5 {
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		_, err := db.ExecContext(short, "SELECT pg_sleep(555)")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a statement that runs out of time = %v, want DeadlineExceeded", err)
		}
		pgtest.OK(t, c.Primary().Await(ctx, nobodySleeps))
		if got := value[int](t, ctx, db, "SELECT pg_backend_pid()"); got != pid {
			t.Fatalf("the next statement ran on backend %d, want %d as before", got, pid)
		}
	}
}

// A listener hears how the connections begin that it dials.
type listener struct {
	mu    sync.Mutex
	heard []*overheard // guarded by mu
}

// overheard is a connection whose first bytes to the server are kept.
type overheard struct {
	net.Conn
	mu   sync.Mutex
	sent []byte // guarded by mu
}

// kept is how many bytes of a connection are kept: more than a cancel request in
// the clear.
const kept = 64

func (l *listener) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	o := &overheard{Conn: conn}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, o)
	return o, nil
}

// beginnings returns what every connection sent first.
func (l *listener) beginnings() (all [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.heard {
		o.mu.Lock()
		all = append(all, slices.Clone(o.sent))
		o.mu.Unlock()
	}
	return all
}

// Write implements net.Conn.
func (o *overheard) Write(b []byte) (int, error) {
	o.mu.Lock()
	o.sent = append(o.sent, b[:min(len(b), kept-len(o.sent))]...)
	o.mu.Unlock()
	return o.Conn.Write(b)
}
