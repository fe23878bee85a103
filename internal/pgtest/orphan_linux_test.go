package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClusterOfADeadProcessIsRemoved kills a process that has a cluster, as a
// panic or a timeout of the go command would, and looks for what is left.
func TestClusterOfADeadProcessIsRemoved(t *testing.T) {
	if os.Getenv("PGTEST_VICTIM") != "" {
		beVictim(t)
	}
	if _, ok := New(t, Options{}).Primary().Server().(*LocalServer); !ok {
		t.Skip("only servers of this machine die with the process")
	}
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	victim.Env = append(os.Environ(), "PGTEST_VICTIM=1")
	out, err := victim.StdoutPipe()
	OK(t, err)
	OK(t, victim.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	OK(t, err)
	where := strings.Fields(line)
	OK(t, victim.Process.Signal(syscall.SIGKILL))
	victim.Wait()

	dir, addrs := where[0], where[1:]
	ctx := Context(t)
	for _, addr := range addrs {
		awaitTrue(ctx, t, "connections to "+addr+" are refused", func() bool { return refused(ctx, addr) })
	}
	awaitTrue(ctx, t, dir+" is gone", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// beVictim starts a cluster, says where it is, and waits to be killed.
func beVictim(t *testing.T) {
	t.Helper()
	c := New(t, Options{Replicas: 1})
	fmt.Fprintln(os.Stdout, run.dir, c.Nodes[0].Addr(), c.Nodes[1].Addr())
	<-t.Context().Done()
}

func refused(ctx context.Context, addr string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func awaitTrue(ctx context.Context, t *testing.T, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			t.Fatalf("%v: never became true: %s", context.Cause(ctx), what)
		}
	}
}
