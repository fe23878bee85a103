package pgctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// ErrNotClean means that a server ended otherwise than by a shutdown in order, so
// that its next start has to recover.
var ErrNotClean = errors.New("was not shut down in order")

// A ClusterState is what pg_control says of a server, in the words of
// pg_controldata.
type ClusterState string

// The states that a server is found in (DBState in pg_control.h). One that
// crashed stays in the state it had.
const (
	StateStartingUp         ClusterState = "starting up"
	StateShutDown           ClusterState = "shut down"
	StateShutDownInRecovery ClusterState = "shut down in recovery"
	StateShuttingDown       ClusterState = "shutting down"
	StateCrashRecovery      ClusterState = "in crash recovery"
	StateArchiveRecovery    ClusterState = "in archive recovery" // a replica, too
	StateProduction         ClusterState = "in production"
)

// Clean reports whether the server was shut down in order, as a primary or a
// replica.
func (s ClusterState) Clean() bool { return s == StateShutDown || s == StateShutDownInRecovery }

// Replica reports whether the server was one when it was last heard of, so that
// its log may go on along a newer timeline than that of its last checkpoint.
func (s ClusterState) Replica() bool {
	return s == StateShutDownInRecovery || s == StateArchiveRecovery
}

// ControlData is what pg_control says. It is exact for a server that does not
// run; that of a running one is as of its last checkpoint.
type ControlData struct {
	SystemID    uint64
	State       ClusterState
	Checkpoint  wal.LSN      // where the record of the latest one is
	Redo        wal.LSN      // where recovery from it begins
	Timeline    wal.Timeline // of the latest checkpoint
	Previous    wal.Timeline // of before it: another one only for the end of a recovery
	MinRecovery wal.Position // before it a replica is not consistent; zero if there is no such place
	BackupStart wal.LSN      // of a copy that has not been recovered yet; zero for all others
	WALLogHints bool
	Checksums   bool
	SegmentSize wal.SegmentSize
}

// CanRewind reports whether pg_rewind works on this server's files: it needs to
// find every block that was changed, hint bits included, in the log.
func (c ControlData) CanRewind() bool { return c.WALLogHints || c.Checksums }

// Reached returns the newest timeline that the files surely hold something of.
func (c ControlData) Reached() wal.Timeline { return max(c.Timeline, c.MinRecovery.Timeline) }

// ControlData reads pg_control by pg_controldata.
func (i *Instance) ControlData(ctx context.Context) (ControlData, error) {
	out, err := i.user.output(ctx, i.cfg.Binaries.Program("pg_controldata"), "--pgdata", i.cfg.Dir)
	if err != nil {
		return ControlData{}, i.failed(err)
	}
	c, err := parseControlData(out)
	return c, i.failed(err)
}

// parseControlData reads what pg_controldata of PostgreSQL 13 to 18 prints in the
// language C. A line that is missing or not understood is an error.
func parseControlData(text string) (c ControlData, err error) {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		lines[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	f := controlFields{lines: lines}
	c = ControlData{
		SystemID:    f.number("Database system identifier", 64),
		State:       ClusterState(f.text("Database cluster state")),
		Checkpoint:  f.lsn("Latest checkpoint location"),
		Redo:        f.lsn("Latest checkpoint's REDO location"),
		Timeline:    wal.Timeline(f.number("Latest checkpoint's TimeLineID", 32)),
		Previous:    wal.Timeline(f.number("Latest checkpoint's PrevTimeLineID", 32)),
		MinRecovery: wal.Position{Timeline: wal.Timeline(f.number("Min recovery ending loc's timeline", 32)), LSN: f.lsn("Minimum recovery ending location")},
		BackupStart: f.lsn("Backup start location"),
		WALLogHints: f.text("wal_log_hints setting") == "on",
		Checksums:   f.number("Data page checksum version", 32) != 0,
		SegmentSize: wal.SegmentSize(f.number("Bytes per WAL segment", 64)),
	}
	if f.err == nil {
		f.err = c.SegmentSize.Check()
	}
	return c, f.err
}

// controlFields reads the lines of pg_controldata and keeps the first error.
type controlFields struct {
	lines map[string]string
	err   error
}

func (f *controlFields) text(name string) string {
	value, ok := f.lines[name]
	if !ok && f.err == nil {
		f.err = fmt.Errorf("pg_controldata does not tell %q", name)
	}
	return value
}

func (f *controlFields) number(name string, bits int) uint64 {
	text := f.text(name)
	if f.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		f.err = fmt.Errorf("pg_controldata: %s: %w", name, err)
	}
	return n
}

func (f *controlFields) lsn(name string) wal.LSN {
	text := f.text(name)
	if f.err != nil {
		return 0
	}
	l, err := wal.ParseLSN(text)
	if err != nil {
		f.err = fmt.Errorf("pg_controldata: %s: %w", name, err)
	}
	return l
}
