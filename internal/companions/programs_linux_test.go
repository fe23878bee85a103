package companions

import (
	"os/exec"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// What a companion leaves when it is killed while it starts a program looks like the
// companion.
func TestWhatACompanionLeavesIsEnded(t *testing.T) {
	dir := t.TempDir()
	begin := func(arg string) (ended chan error, end func() error) {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "read forever", "helios", arg) //nolint:gosec // no input from outside
		in, err := cmd.StdinPipe()
		pgtest.OK(t, err)
		pgtest.OK(t, cmd.Start())
		ended = make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		return ended, in.Close
	}
	left, _ := begin("--state=" + dir + "/n1.state")
	alien, end := begin(dir + "/n1.state")
	pgtest.OK(t, endPrograms(dir))
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("what looks like a companion of the cluster lives")
	}
	pgtest.OK(t, end())
	if err := <-alien; err == nil || err.Error() != "exit status 1" { // as read does at the end of its input
		t.Errorf("a program that has nothing to do with the cluster has ended otherwise than by itself: %v", err)
	}
}
