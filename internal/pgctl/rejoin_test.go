package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/wal"
)

// pair is a primary and its replica, both detached, after the replica took over.
type pair struct {
	old, now *Instance
	took     Promotion
	system   uint64
}

// failedOver returns a pair whose old primary, which has not stopped, wrote
// nothing beyond the fork yet. Its settings are those of newInstance and of more.
func failedOver(ctx context.Context, t testing.TB, more map[string]string) pair {
	t.Helper()
	p := pair{old: newDetached(t, "old"), now: newDetached(t, "now")}
	ok(t, p.old.Configure(more))
	initialise(ctx, t, p.old)
	if more["wal_log_hints"] == "off" && p.old.Binaries().Major() >= 18 { // whose initdb turns checksums on
		_, err := p.old.user.output(ctx, p.old.Binaries().Program("pg_checksums"), "--disable", "--pgdata", p.old.Dir())
		ok(t, err)
	}
	ok(t, p.old.Start(ctx))
	run(ctx, t, p.old, "CREATE TABLE t(x int); INSERT INTO t VALUES (1)")
	ok(t, p.now.Clone(ctx, p.old))
	ok(t, p.now.SetStandby(p.old.ConnString()))
	ok(t, p.now.Start(ctx))
	await(ctx, t, p.old, streaming, "1")
	await(ctx, t, p.now, "SELECT count(*)::text FROM t", "1")
	return p
}

// promote makes the replica the primary, and has it complete a checkpoint.
func (p *pair) promote(ctx context.Context, t testing.TB) {
	t.Helper()
	var err error
	p.took, err = p.now.TakeOver(ctx, nil)
	ok(t, err)
	run(ctx, t, p.now, "INSERT INTO t VALUES (2)")
	run(ctx, t, p.now, "CHECKPOINT")
	c, err := p.now.ControlData(ctx)
	ok(t, err)
	p.system = c.SystemID
}

// options returns what makes the old primary the new one's replica.
func (p *pair) options() RejoinOptions {
	return RejoinOptions{
		Source: p.now.ConnString(), Primary: p.now.ConnString() + " application_name=old", SystemID: p.system,
		Target: p.took.Timeline, History: wal.History{{Timeline: p.took.Timeline, LSN: p.took.SwitchLSN}},
	}
}

// rejoin is Rejoin that must take a rung and leave a replica with the rows 1 and 2.
func (p *pair) rejoin(ctx context.Context, t testing.TB, opt RejoinOptions, want Rung) Rejoined {
	t.Helper()
	done, err := p.old.Rejoin(ctx, opt)
	if err != nil {
		t.Fatalf("Rejoin = %+v, %v", done, err)
	}
	if done.Rung != want {
		t.Errorf("Rejoin took %s, want %s: %+v", done.Rung, want, done)
	}
	t.Logf("%s: files ready after %v, started in %v", done.Rung, done.Prepare, done.Start)
	await(ctx, t, p.old, "SELECT string_agg(x::text, ' ' ORDER BY x) FROM t", "1 2")
	if got := ask(ctx, t, p.old, "SELECT pg_is_in_recovery()::text"); got != "true" {
		t.Error("it is no replica")
	}
	run(ctx, t, p.now, "INSERT INTO t VALUES (3)")
	await(ctx, t, p.old, "SELECT count(*)::text FROM t WHERE x = 3", "1")
	return done
}

func TestAServerThatWroteNothingMoreFollowsAsItIs(t *testing.T) {
	for name, end := range map[string]func(context.Context, *Instance) error{
		"stopped in order": stopFast,
		"crashed":          func(_ context.Context, i *Instance) error { return i.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := waiting(t)
			p := failedOver(ctx, t, nil)
			ok(t, end(ctx, p.old))
			p.promote(ctx, t)
			if done := p.rejoin(ctx, t, p.options(), Follow); done.Diverged || done.Archived != "" {
				t.Errorf("Rejoin = %+v, want nothing diverged", done)
			}
		})
	}
}

// A promotion that a crash cut short leaves a timeline that is none of the cluster's,
// although it has the number of one.
func TestWhatACutPromotionLeftIsPutAside(t *testing.T) {
	t.Run("with its history", func(t *testing.T) { putAside(t, true) })
	t.Run("before its history", func(t *testing.T) { putAside(t, false) })
}

func putAside(t *testing.T, history bool) {
	t.Helper()
	ctx := waiting(t)
	p := failedOver(ctx, t, nil)
	at, err := wal.ParseLSN(ask(ctx, t, p.old, "SELECT pg_current_wal_lsn()::text"))
	ok(t, err)
	segment := ask(ctx, t, p.old, "SELECT pg_walfile_name(pg_current_wal_lsn())")
	run(ctx, t, p.old, "CHECKPOINT")
	run(ctx, t, p.old, "INSERT INTO t VALUES (7)")
	run(ctx, t, p.old, "DELETE FROM t WHERE x = 7")
	written := ask(ctx, t, p.old, "SELECT pg_current_wal_lsn()::text")
	await(ctx, t, p.now, "SELECT (pg_last_wal_replay_lsn() >= '"+written+"')::text", "true")
	ok(t, p.old.Kill())
	p.promote(ctx, t)
	left := []string{filepath.Join(p.old.Dir(), "pg_wal", strings.Replace(segment, "00000001", "00000002", 1))}
	ok(t, p.old.installFile(filepath.Join(p.old.Dir(), "pg_wal", segment), left[0]))
	if history {
		left = append(left, filepath.Join(p.old.Dir(), "pg_wal", wal.Timeline(2).HistoryFile()))
		ok(t, p.old.user.writeFile(left[1], fmt.Sprintf("1\t%s\tno recovery target specified\n", at)))
	}
	f, err := os.OpenFile(left[0], os.O_RDWR, 0)
	ok(t, err)
	size := int64(16 << 20)
	_, err = f.WriteAt(make([]byte, size-int64(at)%size), int64(at)%size)
	ok(t, errors.Join(err, f.Close()))

	p.rejoin(ctx, t, p.options(), Follow)
	for _, path := range left {
		if kept, err := filepath.Glob(filepath.Join(p.old.cfg.State, "aside", "*", filepath.Base(path))); err != nil || len(kept) != 1 {
			t.Errorf("%s is kept as %q, error %v", path, kept, err)
		}
	}
	ok(t, p.old.Stop(ctx, Fast))
	ok(t, p.old.Start(ctx))
	await(ctx, t, p.old, "SELECT count(*)::text FROM t WHERE x = 3", "1")
}

// diverge has the old primary write beyond the fork, and ends it.
func (p *pair) diverge(ctx context.Context, t testing.TB, end func(context.Context, *Instance) error) {
	t.Helper()
	p.promote(ctx, t)
	run(ctx, t, p.old, "INSERT INTO t VALUES (9)")
	ok(t, end(ctx, p.old))
}

func crash(_ context.Context, i *Instance) error { return i.Kill() }

func TestWhatDivergedIsKeptAndRewound(t *testing.T) {
	for name, end := range map[string]func(context.Context, *Instance) error{
		"stopped in order": stopFast,
		"crashed":          crash,
	} {
		t.Run(name, func(t *testing.T) {
			ctx := waiting(t)
			p := failedOver(ctx, t, map[string]string{"helios.mine": "yes"})
			ok(t, WriteFile(filepath.Join(p.old.Dir(), "server.note"), "of the old primary"))
			run(ctx, t, p.now, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
			run(ctx, t, p.old, "ALTER SYSTEM SET primary_conninfo = 'host=nowhere'")
			run(ctx, t, p.old, "ALTER SYSTEM SET work_mem = '5MB'")
			p.diverge(ctx, t, end)
			done := p.rejoin(ctx, t, p.options(), Rewind)
			if !done.Diverged || done.Fork != p.took.SwitchLSN || done.Was.Position.LSN <= done.Fork {
				t.Errorf("Rejoin = %+v, want the fork at %s", done, p.took.SwitchLSN)
			}
			checkTail(ctx, t, p.old, done)
			for sql, want := range map[string]string{
				"SHOW helios.mine":                         "yes",
				"SHOW work_mem":                            "5MB",
				"SHOW synchronous_standby_names":           "",
				"SHOW port":                                fmt.Sprint(p.old.cfg.Port),
				"SHOW primary_conninfo":                    p.options().Primary,
				"SELECT count(*)::text FROM t WHERE x = 9": "0",
			} {
				if got := ask(ctx, t, p.old, sql); got != want {
					t.Errorf("%s = %q, want %q", sql, got, want)
				}
			}
			if note, err := os.ReadFile(filepath.Join(p.old.Dir(), "server.note")); err != nil || string(note) != "of the old primary" {
				t.Errorf("file of ours after the rewind: %q, %v", note, err)
			}
			ok(t, p.old.Stop(ctx, Fast))
			ok(t, p.old.Start(ctx))
		})
	}
}

// checkTail makes sure that pg_waldump finds the lost commit where it is kept.
func checkTail(ctx context.Context, t testing.TB, i *Instance, done Rejoined) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(done.Archived, "README.txt"))
	if err != nil || !strings.Contains(string(text), done.Fork.String()) {
		t.Errorf("README.txt = %s, %v", text, err)
	}
	out, err := i.user.output(ctx, i.Binaries().Program("pg_waldump"), "--path", done.Archived, "--start", done.Fork.String(),
		"--end", done.Was.Position.LSN.String(), "--timeline", done.Was.Position.Timeline.String())
	if err != nil || !strings.Contains(out, "COMMIT") {
		t.Errorf("pg_waldump of what is kept: %v\n%s", err, out)
	}
}

func TestADivergedReplicaIsRewound(t *testing.T) {
	ctx := waiting(t)
	p := failedOver(ctx, t, nil)
	astray := newDetached(t, "astray")
	ok(t, astray.Clone(ctx, p.old))
	ok(t, astray.SetStandby(p.old.ConnString()))
	ok(t, astray.Start(ctx))
	p.promote(ctx, t)
	run(ctx, t, p.old, "INSERT INTO t VALUES (9)")
	await(ctx, t, astray, "SELECT count(*)::text FROM t", "2")
	ok(t, p.old.Kill())
	ok(t, astray.Kill())
	lost := p
	lost.old = astray
	if done := lost.rejoin(ctx, t, lost.options(), Rewind); !done.Diverged {
		t.Errorf("Rejoin = %+v, want it diverged", done)
	}
}

func TestAServerThatCannotBeRewoundIsClonedAndKept(t *testing.T) {
	ctx := waiting(t)
	p := failedOver(ctx, t, map[string]string{"wal_log_hints": "off", "helios.mine": "yes"})
	p.diverge(ctx, t, crash)
	opt := p.options()
	opt.To = Rewind
	if done, err := p.old.Rejoin(ctx, opt); !errors.Is(err, ErrRungs) {
		t.Errorf("Rejoin without a clone = %+v, %v; want %v", done, err, ErrRungs)
	}
	done := p.rejoin(ctx, t, p.options(), Reclone)
	if done.Kept == "" || done.Archived == "" {
		t.Errorf("Rejoin = %+v, want the old files kept", done)
	}
	if _, err := os.Stat(filepath.Join(done.Kept, "PG_VERSION")); err != nil {
		t.Errorf("the data directory that was replaced: %v", err)
	}
	if got := ask(ctx, t, p.old, "SHOW helios.mine"); got != "yes" {
		t.Errorf("helios.mine = %q after the clone, want yes", got)
	}
	for _, name := range []string{p.old.Dir() + cloneSuffix, filepath.Join(p.old.Dir(), cloneMark)} {
		if _, err := os.Stat(name); !gone(err) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

func TestAnEmptyDirectoryIsCloned(t *testing.T) {
	ctx := waiting(t)
	p := failedOver(ctx, t, nil)
	p.promote(ctx, t)
	for name, prepare := range map[string]func(dir string) error{
		"missing": func(string) error { return nil },
		"empty":   MakeDir,
	} {
		fresh := p
		fresh.old = newDetached(t, name)
		ok(t, prepare(fresh.old.Dir()))
		if done := fresh.rejoin(ctx, t, fresh.options(), Reclone); done.Kept != "" || !done.Was.Empty {
			t.Errorf("%s: Rejoin = %+v, want nothing kept", name, done)
		}
		run(ctx, t, fresh.now, "DELETE FROM t WHERE x = 3")
	}
}

func TestAnotherClustersFilesAreNotTouched(t *testing.T) {
	ctx := waiting(t)
	p := failedOver(ctx, t, nil)
	p.promote(ctx, t)
	stranger := newDetached(t, "stranger")
	ok(t, stranger.Init(ctx)) // not of the template
	lost := p
	lost.old = stranger
	for _, from := range []Rung{Follow, Rewind, Reclone} {
		opt := lost.options()
		opt.From = from
		if done, err := stranger.Rejoin(ctx, opt); !errors.Is(err, ErrForeignCluster) {
			t.Errorf("Rejoin of another cluster's files from %s = %+v, %v; want %v", from, done, err, ErrForeignCluster)
		}
	}
	ok(t, stranger.Start(ctx))
}

func TestARewindWaitsForTheSourcesCheckpoint(t *testing.T) {
	ctx := waiting(t)
	p := failedOver(ctx, t, map[string]string{"checkpoint_timeout": "1h"})
	run(ctx, t, p.now, "SELECT pg_reload_conf()")
	p.promote(ctx, t)
	p.took.Timeline++ // as if it had been promoted once more just now
	opt := p.options()
	opt.History = append(wal.History{{Timeline: 2, LSN: p.took.SwitchLSN}}, wal.Switch{Timeline: 3, LSN: p.took.SwitchLSN})
	run(ctx, t, p.old, "INSERT INTO t VALUES (9)")
	ok(t, p.old.Kill())
	if done, err := p.old.Rejoin(ctx, opt); !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("Rejoin = %+v, %v; want %v", done, err, ErrNoCheckpoint)
	}
}

func TestHalfRewoundFilesAreNeverStarted(t *testing.T) {
	ctx := waiting(t)
	p := failedOver(ctx, t, nil)
	p.diverge(ctx, t, crash)
	ok(t, p.old.setBroken(true))
	if err := p.old.Start(ctx); !errors.Is(err, ErrBroken) {
		t.Errorf("Start = %v, want %v", err, ErrBroken)
	}
	if d, err := p.old.LocalData(ctx); err != nil || !d.Broken {
		t.Errorf("LocalData = %+v, %v; want it broken", d, err)
	}
	p.rejoin(ctx, t, p.options(), Reclone)
}

func TestACrashWhileACloneIsPutInPlaceIsMended(t *testing.T) {
	steps := map[string]func(t *testing.T, dir string){
		"before": func(*testing.T, string) {},
		"after the exchange": func(t *testing.T, dir string) {
			ok(t, errors.Join(os.Rename(dir, dir+".x"), os.Rename(dir+cloneSuffix, dir), os.Rename(dir+".x", dir+cloneSuffix)))
		},
		"between two renames": func(t *testing.T, dir string) {
			ok(t, os.Rename(dir, dir+cloneSuffix+oldSuffix))
		},
		"after two renames": func(t *testing.T, dir string) {
			ok(t, errors.Join(os.Rename(dir, dir+cloneSuffix+oldSuffix), os.Rename(dir+cloneSuffix, dir)))
		},
	}
	for name, crashed := range steps {
		t.Run(name, func(t *testing.T) {
			i := newDetached(t, "n1")
			dir := i.Dir()
			ok(t, errors.Join(MakeDir(dir), MakeDir(dir+cloneSuffix), WriteFile(filepath.Join(dir, "PG_VERSION"), "old"),
				WriteFile(filepath.Join(dir+cloneSuffix, "PG_VERSION"), "new"), WriteFile(filepath.Join(dir+cloneSuffix, cloneMark), dir+".kept")))
			crashed(t, dir)
			ok(t, i.finishClone())
			ok(t, i.finishClone())
			entries, err := os.ReadDir(filepath.Dir(dir))
			ok(t, err)
			var names []string
			for _, e := range entries {
				content, err := os.ReadFile(filepath.Join(filepath.Dir(dir), e.Name(), "PG_VERSION"))
				ok(t, err)
				names = append(names, e.Name()+" "+string(content))
			}
			if want := []string{"data new", "data.kept old"}; !slices.Equal(names, want) {
				t.Errorf("directories = %q, want %q", names, want)
			}
			ok(t, errors.Join(os.RemoveAll(dir+".kept"), os.RemoveAll(dir)))
		})
	}
}

func TestForkIsWhereTwoHistoriesPart(t *testing.T) {
	at := func(timeline wal.Timeline, lsn wal.LSN) wal.Position {
		return wal.Position{Timeline: timeline, LSN: lsn}
	}
	two := wal.History{{Timeline: 2, LSN: 100}}
	for name, tt := range map[string]struct {
		end      wal.Position
		mine     wal.History
		target   wal.Timeline
		history  wal.History
		fork     wal.LSN
		diverged bool
	}{
		"before the fork":                        {at(1, 90), nil, 2, two, 100, false},
		"exactly at the fork":                    {at(1, 100), nil, 2, two, 100, false},
		"beyond the fork":                        {at(1, 101), nil, 2, two, 100, true},
		"on the same timeline":                   {at(2, 500), two, 2, two, ^wal.LSN(0), false},
		"its own history is missing":             {at(2, 500), nil, 2, two, ^wal.LSN(0), false},
		"on a timeline of the same number":       {at(2, 500), wal.History{{Timeline: 2, LSN: 80}}, 2, two, 80, true},
		"of the same number, branched off later": {at(2, 500), wal.History{{Timeline: 2, LSN: 120}}, 2, two, 100, true},
		"ahead, on a timeline of its own":        {at(3, 500), wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 400}}, 2, two, 400, true},
		"two promotions behind":                  {at(1, 100), nil, 3, wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 100}}, 100, false},
		"beyond the second fork":                 {at(2, 301), two, 3, wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 300}}, 300, true},
		"the numbers have a gap":                 {at(1, 90), nil, 4, wal.History{{Timeline: 4, LSN: 100}}, 100, false},
	} {
		t.Run(name, func(t *testing.T) {
			fork, diverged := LocalData{Position: tt.end, History: tt.mine}.Fork(tt.target, tt.history)
			if fork != tt.fork || diverged != tt.diverged {
				t.Errorf("Fork = %s, %v; want %s, %v", fork, diverged, tt.fork, tt.diverged)
			}
		})
	}
}
