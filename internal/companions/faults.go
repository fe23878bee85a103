package companions

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/topology"
)

// Bulletin asks the node's companion how the cluster is.
func (n *Node) Bulletin(ctx context.Context) (*topology.Bulletin, error) {
	scheme := "http"
	if n.cluster.opts.TLS != nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+n.Companion+"/v1/watch", nil)
	if err != nil {
		return nil, err
	}
	res, err := n.cluster.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // the rest is not wanted
	line, err := bufio.NewReader(res.Body).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var b topology.Bulletin
	return &b, json.Unmarshal(line, &b)
}

// TLS is what the node's companion speaks; nil for plain text.
func (n *Node) TLS() *tls.Config { return n.cluster.opts.TLS }

// describe is a bulletin in one line, for errors.
func describe(b *topology.Bulletin) string {
	text, err := json.Marshal(b)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// postgres is the server that runs in the node's data directory now; nil if none
// does.
func (n *Node) postgres(ctx context.Context) (*pgctl.Instance, error) {
	if n.Dir == "" {
		return nil, nil
	}
	if _, err := os.Stat(filepath.Join(n.Dir, "postmaster.pid")); err != nil {
		return nil, nil //nolint:nilerr // it does not run
	}
	i, err := pgctl.New(pgctl.Config{Dir: n.Dir, Name: n.Name})
	if err != nil {
		return nil, err
	}
	for n.alone() != 0 && ctx.Err() == nil { // it soon ends by itself
		pause(ctx)
	}
	running, err := i.Adopt(ctx)
	if err != nil || !running {
		return nil, err
	}
	return i, nil
}

// alone returns the process that recovers the data directory for a rewind: a server in
// single-user mode. 0 if there is none.
func (n *Node) alone() int {
	content, err := os.ReadFile(filepath.Join(n.Dir, "postmaster.pid"))
	if err != nil {
		return 0
	}
	var pid int
	if _, err := fmt.Sscan(string(content), &pid); err != nil || pid >= 0 || syscall.Kill(-pid, 0) != nil {
		return 0
	}
	return -pid
}

// pause waits for a moment.
func pause(ctx context.Context) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
	}
}

// onPostgres does something to the node's server, if there is one.
func (n *Node) onPostgres(do func(*pgctl.Instance) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	i, err := n.postgres(ctx)
	if err != nil || i == nil {
		return err
	}
	return do(i)
}

// KillPostgres ends the server's processes at one moment.
func (n *Node) KillPostgres() error {
	if pid := n.alone(); n.Dir != "" && pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return n.onPostgres(func(i *pgctl.Instance) error { return i.Kill() })
}

// KillPostmaster ends the postmaster alone; the server's other processes notice.
func (n *Node) KillPostmaster() error {
	return n.onPostgres(func(i *pgctl.Instance) error { return syscall.Kill(i.PID(), syscall.SIGKILL) })
}

// FreezePostgres stops the server's processes where they stand.
func (n *Node) FreezePostgres() error {
	return n.onPostgres(func(i *pgctl.Instance) error { return i.Freeze() })
}

// ThawPostgres lets them go on.
func (n *Node) ThawPostgres() error {
	return n.onPostgres(func(i *pgctl.Instance) error { return i.Thaw() })
}

// StopPostgres stops the server by hand, behind the companion's back.
func (n *Node) StopPostgres(ctx context.Context, mode pgctl.StopMode) error {
	return n.onPostgres(func(i *pgctl.Instance) error { return i.Stop(ctx, mode) })
}

// signal sends the companion a signal, if it runs.
func (n *Node) signal(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// awaitCompanion waits for the companion's end.
func (n *Node) awaitCompanion() error {
	n.mu.Lock()
	done := n.done
	n.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("the companion of %s does not end", n.Name)
	}
}

// KillCompanion ends the companion as kill -9 does; PostgreSQL goes on.
func (n *Node) KillCompanion() error {
	return errors.Join(n.signal(syscall.SIGKILL), n.awaitCompanion())
}

// StopCompanion ends the companion in order; PostgreSQL goes on.
func (n *Node) StopCompanion() error {
	return errors.Join(n.signal(syscall.SIGTERM), n.awaitCompanion())
}

// FreezeCompanion stops the companion where it stands.
func (n *Node) FreezeCompanion() error { return n.signal(syscall.SIGSTOP) }

// ThawCompanion lets it go on.
func (n *Node) ThawCompanion() error { return n.signal(syscall.SIGCONT) }

// Kill ends everything of the node, as the crash of its machine does.
func (n *Node) Kill() error {
	err := n.atOnce(n.KillCompanion, (*pgctl.Instance).Kill)
	// A companion that was about to start its server may just have done so.
	return errors.Join(err, n.KillPostgres())
}

// Freeze stops everything of the node, as a machine that hangs.
func (n *Node) Freeze() error { return n.atOnce(n.FreezeCompanion, (*pgctl.Instance).Freeze) }

// atOnce does something to the companion and to the server, which takes a while to
// find, at the same moment.
func (n *Node) atOnce(companion func() error, postgres func(*pgctl.Instance) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	i, err := n.postgres(ctx)
	var both sync.WaitGroup
	var one, other error
	both.Go(func() { one = companion() })
	if i != nil {
		both.Go(func() { other = postgres(i) })
	}
	both.Wait()
	return errors.Join(err, one, other)
}

// Thaw lets everything go on.
func (n *Node) Thaw() error { return errors.Join(n.ThawPostgres(), n.ThawCompanion()) }

// Running reports whether the companion runs.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}
