package pgctl

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestControlDataSaysHowAServerEnded(t *testing.T) {
	ctx := waiting(t)
	primary, replica := startedPair(ctx, t)
	await(ctx, t, replica, "SELECT count(*)::text FROM t", "0")
	for _, step := range []struct {
		server *Instance
		end    func() error
		want   ClusterState
	}{
		{replica, func() error { return replica.Stop(ctx, Fast) }, StateShutDownInRecovery},
		{primary, func() error { return primary.Kill() }, StateProduction},
	} {
		ok(t, step.end())
		c, err := step.server.ControlData(ctx)
		if err != nil || c.State != step.want {
			t.Errorf("state of %s = %q, %v; want %q", step.server.cfg.Name, c.State, err, step.want)
		}
		if c.SystemID == 0 || c.Checkpoint == 0 || c.Redo == 0 || c.Timeline != 1 || c.SegmentSize != wal.DefaultSegmentSize || !c.WALLogHints || !c.CanRewind() {
			t.Errorf("ControlData of %s = %+v", step.server.cfg.Name, c)
		}
	}
}

func TestControlDataThatIsNotUnderstoodIsAnError(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	text, err := i.user.output(ctx, i.Binaries().Program("pg_controldata"), i.Dir())
	ok(t, err)
	if _, err := parseControlData(text); err != nil {
		t.Fatalf("parseControlData of what PostgreSQL prints: %v", err)
	}
	for name, bad := range map[string]string{
		"nothing":              "",
		"a line is missing":    strings.Replace(text, "Bytes per WAL segment", "Bytes per segment", 1),
		"a number is none":     strings.Replace(text, "Bytes per WAL segment:", "Bytes per WAL segment: x", 1),
		"a position is none":   strings.Replace(text, "Latest checkpoint location:", "Latest checkpoint location: x", 1),
		"a size that is wrong": strings.Replace(text, "Bytes per WAL segment:", "Bytes per WAL segment: 1", 1),
	} {
		if c, err := parseControlData(bad); err == nil {
			t.Errorf("%s: parseControlData = %+v, want an error", name, c)
		}
	}
}

// walEndOf is WALEnd that must succeed.
func walEndOf(ctx context.Context, t testing.TB, i *Instance) wal.Position {
	t.Helper()
	end, err := i.WALEnd(ctx)
	ok(t, err)
	return end
}

// streaming asks a primary how many replicas a fast stop waits for.
const streaming = "SELECT count(*)::text FROM pg_stat_replication WHERE state = 'streaming'"

func TestFastStopTellsWhereTheLogEnds(t *testing.T) {
	ctx := waiting(t)
	primary, replica := startedPair(ctx, t)
	await(ctx, t, primary, streaming, "1")
	run(ctx, t, primary, "INSERT INTO t SELECT generate_series(1, 1000)")
	end, err := primary.FastStop(ctx)
	ok(t, err)
	c, err := primary.ControlData(ctx)
	ok(t, err)
	if end.Timeline != 1 || end.LSN <= c.Checkpoint || end.LSN.Behind(c.Checkpoint+8192) > 0 && end.LSN > c.Checkpoint+8192 {
		t.Errorf("FastStop = %s, want just behind the checkpoint at %s", end, c.Checkpoint)
	}
	// A fast stop lets the replica receive all there is.
	ok(t, replica.Stop(ctx, Immediate))
	if got := walEndOf(ctx, t, replica); got != end {
		t.Errorf("WALEnd of the replica = %s, want %s", got, end)
	}
}

func TestLogOfACrashedServerEndsWhereRecoveryDoes(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	run(ctx, t, i, "CREATE TABLE t AS SELECT generate_series(1, 20000) AS x")
	flushed := ask(ctx, t, i, "SELECT pg_current_wal_flush_lsn()::text")
	ok(t, i.Kill())
	end := walEndOf(ctx, t, i)
	if least, err := wal.ParseLSN(flushed); err != nil || end.LSN < least {
		t.Errorf("WALEnd = %s, want at least %s", end, flushed)
	}
	ok(t, i.Start(ctx))
	log, err := os.ReadFile(i.Log())
	ok(t, err)
	// The server names the last record that it replayed, which ends where we say.
	_, redone, found := strings.Cut(string(log), "redo done at ")
	at, err := wal.ParseLSN(strings.Fields(redone + " ")[0])
	if !found || err != nil || at >= end.LSN {
		t.Errorf("redo done at %s, %v; WALEnd was %s", at, err, end)
	}
}

func TestATornRecordIsNotPartOfTheLog(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	run(ctx, t, i, "CREATE TABLE t(x text); SELECT pg_switch_wal(); CHECKPOINT")
	before := ask(ctx, t, i, "INSERT INTO t VALUES ('a') RETURNING pg_current_wal_insert_lsn()::text")
	run(ctx, t, i, "INSERT INTO t SELECT repeat(md5(g::text), 60) FROM generate_series(1, 200) g")
	ok(t, i.Kill())
	whole := walEndOf(ctx, t, i)
	cut, err := wal.ParseLSN(before)
	ok(t, err)
	cut += 100_000
	name := wal.SegmentSize(wal.DefaultSegmentSize).Name(1, cut)
	f, err := os.OpenFile(filepath.Join(i.Dir(), "pg_wal", name), os.O_WRONLY, 0)
	ok(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 512), int64(cut%wal.DefaultSegmentSize))
	ok(t, err)
	if torn := walEndOf(ctx, t, i); torn.LSN > cut || torn.LSN+20_000 < cut || torn.LSN >= whole.LSN {
		t.Errorf("WALEnd = %s with the log torn at %s, which went to %s", torn, cut, whole)
	}
}

func TestWALEndFollowsTheTimelineThatAReplicaHasReceived(t *testing.T) {
	ctx := waiting(t)
	primary, replica := startedPair(ctx, t)
	third := newInstance(t, "third")
	ok(t, third.Clone(ctx, primary))
	ok(t, third.SetStandby(replica.ConnString()))
	ok(t, third.Start(ctx))
	run(ctx, t, primary, "INSERT INTO t VALUES (1)")
	await(ctx, t, third, "SELECT count(*)::text FROM t", "1")
	ok(t, primary.Kill())
	took, err := replica.TakeOver(ctx, nil)
	ok(t, err)
	if took.Timeline != 2 || took.SwitchLSN == 0 || took.Already || took.Took < took.Requested {
		t.Errorf("TakeOver = %+v, want timeline 2 and where it began", took)
	}
	run(ctx, t, replica, "INSERT INTO t VALUES (2)")
	await(ctx, t, third, "SELECT count(*)::text FROM t", "2")
	ok(t, third.Kill())
	if end := walEndOf(ctx, t, third); end.Timeline != 2 || end.LSN <= took.SwitchLSN {
		t.Errorf("WALEnd of the replica = %s, want beyond 2:%s", end, took.SwitchLSN)
	}
	end := walEndOf(ctx, t, primary)
	if end.Timeline != 1 {
		t.Errorf("WALEnd of the old primary = %s, want it on timeline 1", end)
	}
	// The history of a timeline that it never was on does not hide what a primary wrote.
	history, err := os.ReadFile(filepath.Join(replica.Dir(), "pg_wal", "00000002.history"))
	ok(t, err)
	ok(t, WriteFile(filepath.Join(primary.Dir(), "pg_wal", "00000002.history"), string(history)))
	if got := walEndOf(ctx, t, primary); got != end {
		t.Errorf("WALEnd of the old primary = %s with the history of timeline 2, want %s", got, end)
	}
	again, err := replica.TakeOver(ctx, nil)
	if err != nil || !again.Already || again.Timeline != 2 || again.SwitchLSN != took.SwitchLSN {
		t.Errorf("TakeOver of a primary = %+v, %v; want %+v", again, err, took)
	}
}

func TestAReplicaTakesOverFromAFrozenPrimary(t *testing.T) {
	ctx := waiting(t)
	primary, replica := startedPair(ctx, t)
	parked, err := replica.Connect(ctx)
	ok(t, err)
	defer parked.Close(ctx)
	ok(t, primary.Freeze())
	took, err := replica.TakeOver(ctx, parked)
	ok(t, err)
	t.Logf("took %v, asked after %v", took.Took, took.Requested)
	run(ctx, t, replica, "INSERT INTO t VALUES (1)")
	ok(t, parked.Ping(ctx))
}
