package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newDetached describes a detached server in a directory of its own, which is
// ended with the test, by whomever it was started.
func newDetached(t testing.TB, name string) *Instance {
	t.Helper()
	i := newInstance(t, name)
	cfg := i.cfg
	cfg.Detached = true
	return detachedFrom(t, cfg)
}

// detachedFrom is New for a server whose first processes may be another's.
func detachedFrom(t testing.TB, cfg Config) *Instance {
	t.Helper()
	i, err := New(cfg)
	ok(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := i.Adopt(ctx); err != nil {
			t.Errorf("Adopt of %s at the end: %v", cfg.Name, err)
		}
		if err := i.HardStop(ctx, patience); err != nil {
			t.Errorf("HardStop of %s: %v", cfg.Name, err)
		}
	})
	return i
}

// adopted returns another instance of the same server that has found it running.
func adopted(ctx context.Context, t testing.TB, i *Instance) *Instance {
	t.Helper()
	other := detachedFrom(t, Config{Binaries: i.cfg.Binaries, Name: i.cfg.Name, Dir: i.cfg.Dir, Log: i.cfg.Log, Detached: true})
	found, err := other.Adopt(ctx)
	if !found || err != nil {
		t.Fatalf("Adopt of the running %s = %v, %v; want true", i.cfg.Name, found, err)
	}
	return other
}

func TestAnAdoptedServerIsAsOneThatWasStarted(t *testing.T) {
	ctx, first := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, first)
	ok(t, first.Start(ctx))
	second := adopted(ctx, t, first)
	if got, want := second.PID(), first.PID(); got != want || !second.Running() {
		t.Errorf("PID of the adopted server = %d, running %v; want %d", got, second.Running(), want)
	}
	if got, want := second.ConnString(), first.ConnString(); got != want {
		t.Errorf("ConnString of the adopted server = %s, want %s", got, want)
	}
	first.Release()
	if first.Running() {
		t.Error("a released server runs, to the one that released it")
	}
	ok(t, second.Configure(map[string]string{"helios.note": "mine"}))
	ok(t, second.Reload(ctx))
	if got := ask(ctx, t, second, "SHOW helios.note"); got != "mine" {
		t.Errorf("helios.note = %q after Reload, want mine", got)
	}
	ok(t, second.Freeze())
	ok(t, second.Thaw())
	ok(t, second.Stop(ctx, Fast))
	<-second.Done()
	if second.Running() || second.PID() != 0 {
		t.Error("Running after Stop")
	}
	ok(t, second.Start(ctx))
	if got := ask(ctx, t, second, "SHOW helios.note"); got != "mine" {
		t.Errorf("helios.note = %q after a restart, want mine", got)
	}
	ok(t, second.Kill())
	if found, err := first.Adopt(ctx); found || err != nil {
		t.Errorf("Adopt of a killed server = %v, %v; want false", found, err)
	}
}

func TestSettingsOfAProcessBeforeAreKept(t *testing.T) {
	ctx, first := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, first)
	ok(t, first.Start(ctx))
	ok(t, first.Configure(map[string]string{"helios.a": `it's a \ slash`, "helios.b": "old"}))
	second := adopted(ctx, t, first)
	ok(t, second.Configure(map[string]string{"helios.b": "new"}))
	ok(t, second.Reload(ctx))
	if got, want := ask(ctx, t, second, "SHOW helios.a")+","+ask(ctx, t, second, "SHOW helios.b"), `it's a \ slash,new`; got != want {
		t.Errorf("settings = %q, want %q", got, want)
	}
}

func TestAdoptionIsNotFooledByAnOldFile(t *testing.T) {
	i := newDetached(t, "n1")
	ok(t, MakeDir(i.Dir()))
	gone := exec.Command("true")
	ok(t, gone.Run())
	for name, pid := range map[string]int{
		"our own number":        os.Getpid(),
		"process 1":             1,
		"a process that ended":  gone.Process.Pid,
		"nobody, in single use": -gone.Process.Pid,
	} {
		content := fmt.Sprintf("%d\n%s\n%d\n5432\n/tmp\n127.0.0.1\n\nready   \n", pid, i.Dir(), time.Now().Unix())
		ok(t, WriteFile(filepath.Join(i.Dir(), "postmaster.pid"), content))
		if found, err := i.Adopt(waiting(t)); found || err != nil {
			t.Errorf("%s: Adopt = %v, %v; want false", name, found, err)
		}
	}
}

func TestNumberOfAnotherServerIsNoProof(t *testing.T) {
	ctx, other := waiting(t), newInstance(t, "other")
	initialise(ctx, t, other)
	ok(t, other.Start(ctx))
	i := newDetached(t, "n1")
	ok(t, MakeDir(i.Dir()))
	content, err := os.ReadFile(filepath.Join(other.Dir(), "postmaster.pid"))
	ok(t, err)
	ok(t, WriteFile(filepath.Join(i.Dir(), "postmaster.pid"), string(content)))
	if found, err := i.Adopt(ctx); found || err != nil {
		t.Errorf("Adopt by the file of another server = %v, %v; want false", found, err)
	}
}

func TestEndOfAKilledPostmasterIsSeenAtOnce(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	second := adopted(ctx, t, i)
	begin := time.Now()
	ok(t, syscall.Kill(second.PID(), syscall.SIGKILL))
	<-second.Done()
	t.Logf("kill -9 was seen after %v", time.Since(begin))
	<-i.Done()
}

func TestAServerStartedMeanwhileIsLeftAlone(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	other := detachedFrom(t, i.cfg)
	if err := other.Start(ctx); !errors.Is(err, errRunning) {
		t.Errorf("Start of a server that runs unadopted = %v, want %v", err, errRunning)
	}
	if !i.Running() || !strings.Contains(i.Status(), "ready") {
		t.Errorf("the server is %q after that", i.Status())
	}
}

// A rewind brings the file that locks the source's socket, and one of ours that is
// empty, if sockets are in the data directory. They are no part of how a server is set up.
func TestAForeignLockOfASocketIsNoObstacle(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Configure(map[string]string{"unix_socket_directories": i.Dir()}))
	_, port := i.endpoint()
	for _, port := range []int{port, port + 1} {
		ok(t, WriteFile(filepath.Join(i.Dir(), fmt.Sprintf(".s.PGSQL.%d.lock", port)), ""))
	}
	own, err := ownFiles(i.Dir())
	ok(t, err)
	if slices.ContainsFunc(own, func(name string) bool { return strings.HasPrefix(name, ".s.") }) {
		t.Errorf("ownFiles = %v, want no sockets among them", own)
	}
	ok(t, i.Start(ctx))
}

func TestAStartGoesOnWhenNobodyWaits(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	short, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("cannot wait"))
	err := i.Start(short)
	if !errors.Is(err, ErrStarting) || !i.Running() {
		t.Fatalf("Start = %v, running %v; want %v", err, i.Running(), ErrStarting)
	}
	ok(t, i.AwaitReady(ctx))
}

func TestRootRunsAServerAsTheOwnerOfItsData(t *testing.T) {
	dir := t.TempDir()
	got, err := ownerOf(dir)
	ok(t, err)
	want, err := serverUser()
	ok(t, err)
	if got.uid != want.uid || got.gid != want.gid {
		t.Errorf("ownerOf our own directory = %+v, want %+v", got, want)
	}
	if os.Geteuid() != 0 {
		return
	}
	ok(t, os.Chown(dir, 1, 1)) // daemon, everywhere
	if got, err := ownerOf(dir); err != nil || got.uid != 1 || !got.change {
		t.Errorf("ownerOf a directory of user 1 = %+v, %v", got, err)
	}
}
