package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pidIn waits for a file that holds the number of a process.
func pidIn(ctx context.Context, t *testing.T, path string) int {
	t.Helper()
	var pid int
	waitFor(ctx, t, "a process writes its number to "+path, func() bool {
		text, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid
}

// waitFor waits for a condition.
func waitFor(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, context.Cause(ctx))
		}
	}
}

// isGone reports whether nothing of a process runs any more.
func isGone(t *testing.T, pid int) bool {
	t.Helper()
	q, there, err := readProc(pid)
	ok(t, err)
	return !there || q.dead()
}

// makeSlowTool makes a directory with slowTool as initdb.
func makeSlowTool(t *testing.T) string {
	t.Helper()
	dir, err := MakeTempDir("pgctl-tool")
	ok(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ok(t, os.WriteFile(filepath.Join(dir, "initdb"), []byte(slowTool), 0o755))
	return dir
}

// A companion is killed while it makes a data directory. The tool ends with it. A
// child of the tool does not, and as long as that is there nobody else begins.
func TestAToolEndsWithItsParentAndNobodyBeginsBeforeItHas(t *testing.T) {
	ctx := waiting(t)
	dir := makeSlowTool(t)
	parent := exec.CommandContext(ctx, os.Args[0])
	parent.Env = append(os.Environ(), toolParent+"="+dir)
	parent.Stderr = os.Stderr
	ok(t, parent.Start())
	data := filepath.Join(dir, "data")
	tool, child := pidIn(ctx, t, data+".tool"), pidIn(ctx, t, data+".child")
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })

	ok(t, parent.Process.Kill())
	_ = parent.Wait() // it was killed
	waitFor(ctx, t, "the tool is gone", func() bool { return isGone(t, tool) })
	i, err := slow(dir)
	ok(t, err)
	if isGone(t, child) {
		t.Fatal("the tool's child is gone with it, and so nothing is shown")
	}
	for name, begin := range map[string]func(context.Context) error{
		"Init": i.Init, "Start": i.Start, "AwaitTools": i.AwaitTools,
		"Rejoin": func(ctx context.Context) error { _, err := i.Rejoin(ctx, RejoinOptions{}); return err },
	} {
		short, cancel := context.WithTimeoutCause(ctx, 50*time.Millisecond, fmt.Errorf("%s has had 50ms", name))
		if err := begin(short); !errors.Is(err, ErrToolRuns) {
			t.Errorf("%s while the child of a dead process works on the files: %v, want %v", name, err, ErrToolRuns)
		}
		cancel()
	}
	ok(t, syscall.Kill(child, syscall.SIGKILL))
	ok(t, i.AwaitTools(ctx))
}

// A tool that is told to end does so with what it has started, before whoever told it
// goes on: to remove the directory, or to begin again.
func TestAToolThatIsInterruptedLeavesNoChild(t *testing.T) {
	ctx := waiting(t)
	dir := makeSlowTool(t)
	i, err := slow(dir)
	ok(t, err)
	interrupted := errors.New("interrupted")
	short, interrupt := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() { ended <- i.Init(short) }()
	data := filepath.Join(dir, "data")
	tool, child := pidIn(ctx, t, data+".tool"), pidIn(ctx, t, data+".child")
	interrupt(interrupted)
	if err := <-ended; !errors.Is(err, interrupted) {
		t.Errorf("the end is %v, want %v", err, interrupted)
	}
	if !isGone(t, tool) || !isGone(t, child) {
		_ = syscall.Kill(child, syscall.SIGKILL)
		t.Error("the tool or its child is there after it was interrupted")
	}
}
