package netns

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// network makes one, or skips where that cannot be.
func network(t *testing.T, names ...string) *Network {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip("no partitions here:", err)
	}
	n, err := New(names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// listen accepts connections on a host, and echoes.
func listen(t *testing.T, n *Network, host string) string {
	t.Helper()
	var l net.Listener
	var err error
	addr := n.Addr(host) + ":7000"
	if e := n.inside(host, func() { l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr) }); errors.Join(e, err) != nil {
		t.Fatal(errors.Join(e, err))
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return addr
}

func reaches(t *testing.T, n *Network, from, addr string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	conn, err := n.Dial(from)(ctx, "tcp", addr)
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dial from %s to %s: %v, want silence", from, addr, err)
		}
		return false
	}
	conn.Close()
	return true
}

func TestACutIsSilentAndHeals(t *testing.T) {
	n := network(t, "a", "b", "c")
	addr := listen(t, n, "a")
	if !reaches(t, n, "b", addr) || !reaches(t, n, "c", addr) {
		t.Fatal("hosts do not see each other")
	}
	if err := n.Cut("a", "b"); err != nil {
		t.Fatal(err)
	}
	if reaches(t, n, "b", addr) {
		t.Error("b reaches a through the cut")
	}
	if !reaches(t, n, "c", addr) {
		t.Error("c does not reach a, though only b was cut off")
	}
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	if !reaches(t, n, "b", addr) {
		t.Error("b does not reach a after Heal")
	}
}

func TestACutOneWayLosesWhatGoesThatWay(t *testing.T) {
	n := network(t, "a", "b")
	addr := listen(t, n, "a")
	if err := n.CutOneWay("b", "a"); err != nil {
		t.Fatal(err)
	}
	if reaches(t, n, "b", addr) {
		t.Error("b reaches a, though what it sends is lost")
	}
}

func TestProgramsRunOnHosts(t *testing.T) {
	n := network(t, "a")
	cmd := exec.CommandContext(t.Context(), "ip", "-br", "addr", "show", "eth0")
	n.Wrap("a", cmd)
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), n.Addr("a")) {
		t.Errorf("ip addr on a prints %q, %v; want %s in it", out, err, n.Addr("a"))
	}
}
