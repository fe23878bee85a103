package companions

import (
	"os/exec"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A companion that is killed while it starts a program leaves a child that looks like
// the companion, and initdb a shell that has not become the server yet.
func TestWhatProgramsLeaveIsEnded(t *testing.T) {
	dir := t.TempDir()
	begin := func(arg string, env ...string) (ended chan error, end func() error) {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "read forever", "helios", arg) //nolint:gosec // no input from outside
		cmd.Args[0], cmd.Env = "sh", env
		in, err := cmd.StdinPipe()
		pgtest.OK(t, err)
		pgtest.OK(t, cmd.Start())
		ended = make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		return ended, in.Close
	}
	companion, _ := begin("--state=" + dir + "/n1.state")
	server, _ := begin("/usr/bin/postgres --check", "LANG=C", "PGDATA="+dir+"/n1")
	alien, end := begin(dir + "/n1.state")
	pgtest.OK(t, endPrograms(dir))
	for what, ended := range map[string]chan error{"companion": companion, "server": server} {
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("what is about to be a %s of the cluster lives", what)
		}
	}
	pgtest.OK(t, end())
	if err := <-alien; err == nil || err.Error() != "exit status 1" { // as read does at the end of its input
		t.Errorf("a program that has nothing to do with the cluster has ended otherwise than by itself: %v", err)
	}
}
