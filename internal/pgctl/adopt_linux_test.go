package pgctl

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNumberOfABackendIsNoProof(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	conn, err := i.Connect(ctx)
	ok(t, err)
	defer conn.Close(ctx)
	backend := lockFile{pid: int(conn.PgConn().PID())}
	if ours, err := isPostmaster(backend, i.Dir()); ours || err != nil {
		t.Errorf("isPostmaster of a backend = %v, %v; want false", ours, err)
	}
}

// startBelowAParentThatDoesNotReap starts the server of i as a child of a shell
// that stands still.
func startBelowAParentThatDoesNotReap(t *testing.T, i *Instance) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `"$0" -D "$1" >"$1.log" 2>&1 & echo started; exec >&-; kill -STOP $$`, i.Binaries().Program("postgres"), i.Dir())
	i.user.prepare(cmd)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the shell said %q, %v", line, err)
	}
}

func TestAZombieIsDead(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	i.mu.Lock()
	err := i.writeSettingsLocked()
	i.mu.Unlock()
	ok(t, err)
	startBelowAParentThatDoesNotReap(t, i)
	for found := false; !found; found, err = i.Adopt(ctx) {
		ok(t, errors.Join(err, ctx.Err()))
	}
	ok(t, i.AwaitReady(ctx))
	pid := i.PID()
	ok(t, syscall.Kill(pid, syscall.SIGKILL))
	select {
	case <-i.Done():
	case <-ctx.Done():
		t.Fatal("the end of a postmaster that nobody reaps was not seen")
	}
	q, found, err := readProc(pid)
	if !found || err != nil || !q.dead() {
		t.Fatalf("readProc = %+v, %v, %v; want a zombie", q, found, err)
	}
	if found, err := i.Adopt(ctx); found || err != nil || i.Running() {
		t.Errorf("Adopt of a zombie = %v, %v; want false", found, err)
	}
	ok(t, i.Start(ctx))
}

// TestACompanionThatIsProcess1ReapsItsServer has the kernel give orphans to this process,
// as it does to the first one of a container.
func TestACompanionThatIsProcess1ReapsItsServer(t *testing.T) {
	ok(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	t.Cleanup(func() { ok(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) })
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Configure(nil))
	_, err := i.user.output(ctx, i.Binaries().Program("pg_ctl"), "start", "-w", "-s", "-D", i.Dir(), "-l", i.Log())
	ok(t, err)
	found, err := i.Adopt(ctx)
	if !found || err != nil {
		t.Fatalf("Adopt = %v, %v; want true", found, err)
	}
	tree, err := processTree(i.PID())
	ok(t, err)
	if tree[0].parent != os.Getpid() {
		t.Fatalf("the parent of the postmaster is %d, want us", tree[0].parent)
	}
	ok(t, syscall.Kill(i.PID(), syscall.SIGKILL))
	<-i.Done()
	i.current().running.Wait()
	ok(t, i.HardStop(ctx, 0))
	for _, q := range tree {
		for there := true; there; {
			after, found, err := readProc(q.pid)
			if err != nil || ctx.Err() != nil {
				t.Fatalf("process %d is left as %+v, %v", q.pid, after, err)
			}
			ok(t, i.HardStop(ctx, 0)) // one that was dying then is dead by now
			there = found
		}
	}
}

func TestAHungServerIsStoppedHard(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	ok(t, i.Freeze())
	begin := time.Now()
	ok(t, i.HardStop(ctx, 50*time.Millisecond))
	t.Logf("HardStop of a frozen server took %v", time.Since(begin))
	if left, err := stragglers(i.Dir()); err != nil || len(left) > 0 || i.Running() {
		t.Errorf("after HardStop: processes %v, %v; want none", left, err)
	}
	ok(t, i.HardStop(ctx, 0))
	ok(t, i.Start(ctx))
}

func TestBackendsOfADeadPostmasterAreEnded(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	tree, err := processTree(i.PID())
	ok(t, err)
	for _, q := range tree[1:] {
		ok(t, sendSignal(q.pid, syscall.SIGSTOP))
	}
	ok(t, syscall.Kill(i.PID(), syscall.SIGKILL))
	<-i.Done()
	if left, err := stragglers(i.Dir()); err != nil || len(left) == 0 {
		t.Fatalf("stragglers = %v, %v; want frozen backends", left, err)
	}
	ok(t, i.Start(ctx))
	other := adopted(ctx, t, i)
	if other.PID() == tree[0].pid {
		t.Error("the new postmaster has the number of the old one")
	}
}

func TestALockFileThatACrashLeftEmptyDoesNotMatter(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, WriteFile(filepath.Join(i.Dir(), "postmaster.pid"), ""))
	if found, err := i.Adopt(ctx); found || err != nil {
		t.Errorf("Adopt = %v, %v; want false", found, err)
	}
	ok(t, i.Start(ctx))
}
