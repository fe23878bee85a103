package walbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// Options say what is measured.
type Options struct {
	Workloads   []string      // some of Workloads
	Duration    time.Duration // of each measurement, of all its paths together, about
	Subscribers []int         // how many fanout and live have; the last also says it for live
	Short       bool          // little WAL and one round: to see that it works
	Log         io.Writer     // what it is at
}

// bench is one run.
type bench struct {
	Options
	report *Report
}

// A workload is one kind of measurement.
type workload struct {
	name string
	run  func(*bench, context.Context) error
}

func workloads() []workload {
	return []workload{
		{"fanout", (*bench).fanout},
		{"live", (*bench).live},
		{"catchup", (*bench).catchup},
		{"slow", (*bench).slow},
		{"compression", (*bench).compression},
		{"decode", (*bench).decode},
		{"memory", (*bench).memory},
		{"rows", (*bench).rows},
		{"idle", (*bench).idle},
		{"latency", (*bench).latency},
	}
}

// Workloads returns the names of all workloads.
func Workloads() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return names
}

// Run measures. The report has what was measured until an error. Without
// PostgreSQL that is [pgtest.ErrUnavailable].
func Run(ctx context.Context, o Options) (*Report, error) {
	b := &bench{Options: o, report: newReport()}
	defer func() { b.report.Load = append(b.report.Load, load()) }()
	for _, w := range workloads() {
		if !slices.Contains(o.Workloads, w.name) {
			continue
		}
		fmt.Fprintf(b.Log, "bench: %s\n", w.name)
		if err := w.run(b, ctx); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return b.report, fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return b.report, nil
}

// settings are those of every server that is measured. Nothing times out while a
// process stands still, and nothing happens by itself.
func settings(extra map[string]string) map[string]string {
	set := map[string]string{
		"autovacuum":           "off",
		"checkpoint_timeout":   "1h",
		"max_connections":      "100",
		"max_wal_senders":      "250",
		"max_wal_size":         "16GB",
		"shared_buffers":       "128MB",
		"wal_keep_size":        "8GB",
		"wal_receiver_timeout": "0",
		"wal_sender_timeout":   "0",
	}
	maps.Copy(set, extra)
	return set
}

// durable are the settings where a commit is to cost what it costs.
var durable = map[string]string{"fsync": "on"}

// start starts a primary and some standbys of it.
func (b *bench) start(ctx context.Context, replicas int, extra map[string]string) (*pgtest.Cluster, error) {
	c, err := pgtest.Start(ctx, pgtest.Options{Replicas: replicas, Settings: settings(extra)})
	if err != nil {
		return nil, err
	}
	version, err := pgtest.Value[string](ctx, c.Primary(), "SHOW server_version")
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	b.report.Server = "PostgreSQL " + version
	return c, nil
}

// conninfo is how a client or a relay connects to a server.
func conninfo(n *pgtest.Node, name string) string { return n.Server().Conninfo(name) }

// written returns how far the primary's WAL is flushed.
func written(ctx context.Context, n *pgtest.Node) (wal.LSN, error) {
	// What is not yet flushed would be by the next commit.
	if err := n.Exec(ctx, "SELECT txid_current()"); err != nil {
		return 0, err
	}
	return n.LSN(ctx)
}

// pgbench runs PostgreSQL's own load against a server.
func pgbench(ctx context.Context, n *pgtest.Node, args ...string) (string, error) {
	host, port, err := net.SplitHostPort(n.DirectAddr())
	if err != nil {
		return "", err
	}
	bin, err := pgctl.FindBinaries()
	if err != nil {
		return "", err
	}
	args = slices.Concat([]string{"-h", host, "-p", port, "-U", pgctl.Superuser}, args, []string{"postgres"})
	out, err := exec.CommandContext(ctx, bin.Program("pgbench"), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench: %w: %s", err, out)
	}
	return string(out), nil
}

// tpsOf returns the transactions per second that pgbench reports.
func tpsOf(out string) (float64, error) {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "tps = "); ok {
			number, _, _ := strings.Cut(rest, " ")
			return strconv.ParseFloat(strings.TrimSpace(number), 64)
		}
	}
	return 0, fmt.Errorf("pgbench tells no tps: %s", out)
}

// seconds writes a duration as pgbench takes it.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(d.Round(time.Second).Seconds())))
}

// grow has the primary write at least so many bytes of WAL, of several kinds:
// COPY, updates with full-page images, and text that does not compress well.
func (b *bench) grow(ctx context.Context, n *pgtest.Node, size int64) (from, to wal.LSN, err error) {
	if from, err = written(ctx, n); err != nil {
		return 0, 0, err
	}
	scale, texts := max(1, min(5, size>>26)), int64(200_000)
	if b.Short {
		texts = 10_000
	}
	for to = from; to < from+wal.LSN(size); { //nolint:gosec // positive
		if _, err := pgbench(ctx, n, "-i", "-q", "-s", strconv.FormatInt(scale, 10)); err != nil {
			return 0, 0, err
		}
		for _, sql := range []string{
			"CHECKPOINT",
			"UPDATE pgbench_accounts SET abalance = abalance + 1",
			"CREATE TABLE IF NOT EXISTS bulk (id bigint, body text)",
			fmt.Sprintf("INSERT INTO bulk SELECT i, md5(i::text) || md5((-i)::text) FROM generate_series(1, %d) i", scale*texts),
		} {
			if err := n.Exec(ctx, sql); err != nil {
				return 0, 0, err
			}
		}
		if err := n.Exec(ctx, "TRUNCATE bulk"); err != nil {
			return 0, 0, err
		}
		if to, err = written(ctx, n); err != nil {
			return 0, 0, err
		}
	}
	return from, to, nil
}

// senders returns the walsenders of a server that serve a name.
func senders(ctx context.Context, n *pgtest.Node, name string) ([]int, error) {
	conn, err := n.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // read what it had
	var pids []int
	err = conn.QueryRow(ctx, "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_replication WHERE application_name = $1", name).Scan(&pids)
	return pids, err
}

// metered does something and adds to m what processor time it took the
// processes of each part, for each of so many units.
func metered(m measure, units float64, parts map[string][]int, do func() error) error {
	before := map[string]time.Duration{}
	for unit, pids := range parts {
		used, err := cpuOf(pids...)
		if err != nil {
			return do() // it is not known here
		}
		before[unit] = used
	}
	if err := do(); err != nil {
		return err
	}
	for unit, pids := range parts {
		used, err := cpuOf(pids...)
		if err != nil {
			return err
		}
		m[unit] = (used - before[unit]).Seconds() / units
	}
	return nil
}

const (
	mega = 1e6
	giga = 1e9
)
