package consensus_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
)

// eventually waits, in real time, for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within 30s", what)
		}
	}
}

// onLoopback opens a node that is reached over TCP.
func onLoopback(t testing.TB, name string, timings consensus.Timings) (*consensus.Node, string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	node, err := consensus.Open(consensus.Config{
		Name: name, Dir: filepath.Join(t.TempDir(), name), Timings: timings,
		Stream: consensus.NewStreamLayer(listener, consensus.Address(addr), dial),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return node, addr
}

// threeOnLoopback opens a cluster of three; the first one founded it.
func threeOnLoopback(t testing.TB, timings consensus.Timings) []*consensus.Node {
	t.Helper()
	var nodes []*consensus.Node
	for _, name := range []string{"n1", "n2", "n3"} {
		node, addr := onLoopback(t, name, timings)
		nodes = append(nodes, node)
		var err error
		if name == "n1" {
			err = node.Bootstrap(t.Context(), failover.Member{Name: name, Companion: addr, Witness: true})
		} else {
			err = nodes[0].AddVoter(t.Context(), name, addr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func TestNodesAgreeOverTCP(t *testing.T) {
	nodes := threeOnLoopback(t, consensus.Timings{})
	ok(t, nodes[0].Verify(t.Context()))
	ok(t, nodes[0].Propose(t.Context(), numbered(7)))
	for _, n := range nodes {
		eventually(t, "agreement", func() bool { return has(n.State(), 7) })
	}
	ok(t, nodes[0].Transfer(t.Context(), "n3"))
	eventually(t, "new leader", func() bool { return nodes[2].Verify(t.Context()) == nil })
	ok(t, nodes[2].Propose(t.Context(), numbered(8)))
	if name, addr := nodes[2].Leader(); name != "n3" || addr == "" || strings.Contains(addr, "@") {
		t.Errorf("Leader() = %s at %s, want n3 at an address that can be dialled", name, addr)
	}
	for _, n := range nodes {
		ok(t, n.Close())
	}
	// Raft's own transport does not wait for the goroutines that close with their connections.
	eventually(t, "end of every goroutine", func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "hashicorp")
	})
}

func TestAStreamBeginsWithItsMagic(t *testing.T) {
	here, there := net.Pipe()
	layer := consensus.NewStreamLayer(closedListener{}, consensus.Address("n1:1"), func(context.Context, string) (net.Conn, error) { return here, nil })
	node, err := consensus.Open(consensus.Config{Name: "n1", Dir: t.TempDir(), Stream: layer})
	ok(t, err)
	defer func() { ok(t, node.Close()) }()
	first := make(chan byte, 1)
	go func() {
		b, _ := bufio.NewReader(there).ReadByte()
		first <- b
		_ = there.Close()
	}()
	if _, err := layer.Dial(consensus.Target("n2", "n2:1"), time.Second); err == nil {
		t.Error("Dial of a node that hangs up succeeded")
	}
	if got := <-first; got != consensus.StreamMagic {
		t.Errorf("the first byte is %#x, want %#x", got, consensus.StreamMagic)
	}
}

// A closedListener accepts nothing.
type closedListener struct{}

func (closedListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (closedListener) Close() error              { return nil }
func (closedListener) Addr() net.Addr            { return consensus.Address("") }

func TestAStreamToAnotherThanMeantIsRefused(t *testing.T) {
	nodes := threeOnLoopback(t, consensus.Timings{})
	n2 := nodes[0].Servers()[1]
	wants(t, "AddVoter of n4 at n2's address", nodes[0].AddVoter(t.Context(), "n4", n2.Address), consensus.ErrOtherNode)

	stranger, strange := onLoopback(t, "n4", consensus.Timings{})
	ok(t, stranger.Bootstrap(t.Context(), failover.Member{Name: "n4", Companion: strange, Witness: true}))
	wants(t, "AddVoter of a node of another cluster", nodes[0].AddVoter(t.Context(), "n4", strange), consensus.ErrOtherCluster)
	if got := len(stranger.Servers()); got != 1 {
		t.Errorf("the stranger knows %d nodes, want itself alone", got)
	}
	ok(t, stranger.Propose(t.Context(), numbered(7)))
}

func TestWhoSaysNothingKeepsNobodyWaiting(t *testing.T) {
	nodes := threeOnLoopback(t, consensus.Timings{})
	for _, s := range nodes[0].Servers() {
		silent, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Address)
		ok(t, err)
		defer silent.Close()
	}
	fresh, addr := onLoopback(t, "n4", consensus.Timings{})
	ok(t, nodes[0].AddVoter(t.Context(), "n4", addr))
	eventually(t, "agreement", func() bool { return len(fresh.Servers()) == 4 })
}

func TestClosingTheLayerEndsItsStreams(t *testing.T) {
	nodes := threeOnLoopback(t, consensus.Timings{})
	addr := nodes[0].Servers()[1].Address
	silent, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	ok(t, err)
	defer silent.Close()
	_, err = silent.Write([]byte{consensus.StreamMagic})
	ok(t, err)
	ok(t, nodes[1].Close())
	ok(t, silent.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Read = %v, want the end: %v", err, io.EOF)
	}
}
