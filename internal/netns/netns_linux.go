package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Subnet has the addresses of all hosts of every network.
const Subnet = "10.77.0.0/24"

// nowhere is a hardware address that nobody has.
const nowhere = "02:00:00:00:00:99"

// made numbers the networks of this process.
var made atomic.Int64

// A Network is a number of hosts that see each other. It is safe for concurrent
// use.
type Network struct {
	prefix string
	hosts  map[string]string // address by name

	mu   sync.Mutex
	cuts map[[2]string]bool // guarded by mu: from, to
}

// Available returns why there can be no networks here; nil if there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces take root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return errors.New("network namespaces take the program ip (iproute2)")
	}
	n, err := New("x")
	if err != nil {
		return err
	}
	return n.Close()
}

// New makes a network with one host of each name. Close removes it.
func New(names ...string) (*Network, error) {
	n := &Network{
		prefix: fmt.Sprintf("h%xn%d", os.Getpid(), made.Add(1)),
		hosts:  make(map[string]string), cuts: make(map[[2]string]bool),
	}
	if err := n.build(names); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// build makes the bridge and the hosts.
func (n *Network) build(names []string) error {
	hub := n.space("hub")
	steps := [][]string{
		{"netns", "add", hub},
		{"-n", hub, "link", "add", "bridge", "type", "bridge"},
		{"-n", hub, "link", "set", "bridge", "up"},
	}
	for i, name := range names {
		space, port := n.space(name), "p"+strconv.Itoa(i)
		n.hosts[name] = fmt.Sprintf("10.77.0.%d", i+1)
		steps = append(steps,
			[]string{"netns", "add", space},
			[]string{"-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space},
			[]string{"-n", hub, "link", "set", port, "master", "bridge", "up"},
			[]string{"-n", space, "addr", "add", n.hosts[name] + "/24", "dev", "eth0"},
			[]string{"-n", space, "link", "set", "eth0", "up"},
			[]string{"-n", space, "link", "set", "lo", "up"},
		)
	}
	for _, step := range steps {
		if err := ip(step...); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) space(name string) string { return n.prefix + name }

// ip runs the program of that name.
func ip(args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.Command("ip", args...) //nolint:noctx // it takes milliseconds
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// Addr returns a host's address.
func (n *Network) Addr(name string) string { return n.hosts[name] }

// Wrap has cmd run on a host.
func (n *Network) Wrap(name string, cmd *exec.Cmd) {
	program, err := exec.LookPath("ip")
	if err != nil {
		program = "ip"
	}
	cmd.Args = append([]string{program, "netns", "exec", n.space(name), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = program
}

// Dial returns a function that opens connections from a host.
func (n *Network) Dial(name string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		e := n.inside(name, func() { conn, err = new(net.Dialer).DialContext(ctx, network, addr) })
		return conn, errors.Join(e, err)
	}
}

// inside runs do on a thread that is on a host. A socket belongs for ever to where it was
// made.
func (n *Network) inside(name string, do func()) error {
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close() //nolint:errcheck // only looked at
	there, err := os.Open(filepath.Join("/run/netns", n.space(name)))
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer there.Close() //nolint:errcheck // only looked at
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	do()
	if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
		return err // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return nil
}

// CutOneWay loses all packets from one host to another.
func (n *Network) CutOneWay(from, to string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]string{from, to}] = true
	return ip("-n", n.space(from), "neigh", "replace", n.hosts[to], "lladdr", nowhere, "dev", "eth0", "nud", "permanent")
}

// Cut loses all packets between a host and each of others.
func (n *Network) Cut(host string, others ...string) error {
	var errs []error
	for _, other := range others {
		errs = append(errs, n.CutOneWay(host, other), n.CutOneWay(other, host))
	}
	return errors.Join(errs...)
}

// Isolate loses all packets to and from a host.
func (n *Network) Isolate(host string) error {
	var others []string
	for name := range n.hosts {
		if name != host {
			others = append(others, name)
		}
	}
	return n.Cut(host, others...)
}

// Heal undoes all cuts.
func (n *Network) Heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for cut := range n.cuts {
		errs = append(errs, ip("-n", n.space(cut[0]), "neigh", "del", n.hosts[cut[1]], "dev", "eth0"))
		delete(n.cuts, cut)
	}
	return errors.Join(errs...)
}

// Close removes the network. Processes on its hosts must have ended.
func (n *Network) Close() error {
	var errs []error
	for _, name := range append([]string{"hub"}, slices.Collect(maps.Keys(n.hosts))...) {
		if _, err := os.Stat(filepath.Join("/run/netns", n.space(name))); err == nil {
			errs = append(errs, ip("netns", "del", n.space(name)))
		}
	}
	return errors.Join(errs...)
}
