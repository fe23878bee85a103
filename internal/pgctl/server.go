package pgctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/wal"
)

// StopMode says what a stopping server does with its sessions.
type StopMode uint8

const (
	// Smart waits until every client has left.
	Smart StopMode = iota
	// Fast ends the sessions, writes a checkpoint and lets standbys receive all.
	Fast
	// Immediate ends all processes at once; the next start recovers from WAL.
	Immediate
)

// signal returns what the postmaster understands as m.
func (m StopMode) signal() syscall.Signal {
	switch m {
	case Smart:
		return syscall.SIGTERM
	case Fast:
		return syscall.SIGINT
	case Immediate:
		return syscall.SIGQUIT
	}
	panic(fmt.Sprintf("pgctl: stop mode %d", m))
}

// ErrStarting means that a detached server was still on its way up when the
// time for it had passed. It goes on: see [Instance.AwaitReady].
var ErrStarting = errors.New("is still starting")

// Start starts the server and returns when it accepts connections. If it ends
// instead, the error quotes the end of its log. If ctx ends first, the server
// is killed; a detached one goes on starting, since the recovery under way is
// needed whenever it is done, and the error is [ErrStarting].
func (i *Instance) Start(ctx context.Context) error {
	i.control.Lock()
	defer i.control.Unlock()
	if i.Running() {
		return i.failed(errRunning)
	}
	if err := i.AwaitTools(ctx); err != nil {
		return err
	}
	from, err := i.launch()
	if err != nil {
		return i.failed(err)
	}
	if err = i.awaitReady(ctx); err == nil {
		return nil
	}
	if i.cfg.Detached && i.Running() {
		return i.failed(fmt.Errorf("%w: %w", ErrStarting, err))
	}
	return errors.Join(err, i.kill(), i.complaints(from))
}

// AwaitReady returns when a running server accepts connections.
func (i *Instance) AwaitReady(ctx context.Context) error {
	if _, err := i.runningServer(); err != nil {
		return err
	}
	return i.awaitReady(ctx)
}

// Status returns what the postmaster says of itself in postmaster.pid: starting,
// ready, stopping, or standby for a replica that takes no connections yet; ""
// if it does not run.
func (i *Instance) Status() string {
	lock, ok, err := readLockFile(i.cfg.Dir)
	if err != nil || !ok || lock.pid == 0 || lock.pid != i.PID() {
		return ""
	}
	return lock.status
}

// launch starts the postmaster; from is where in the log its output begins.
func (i *Instance) launch() (from int64, err error) {
	if i.cfg.SocketDir != "" {
		if err := i.user.mkdir(i.cfg.SocketDir); err != nil {
			return 0, err
		}
	}
	log, err := os.OpenFile(i.cfg.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // nothing was written to this descriptor
	from, err = log.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if i.isBroken() {
		return 0, ErrBroken
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.writeSettingsLocked(); err != nil {
		return 0, err
	}
	args, err := i.argsLocked()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(i.cfg.Binaries.Program("postgres"), args...) //nolint:noctx // the server outlives the call
	i.user.prepare(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	i.server, err = i.startServer(cmd)
	return from, err
}

// startServer starts cmd as a child that does not outlive this process, or as a
// detached one.
func (i *Instance) startServer(cmd *exec.Cmd) (*process, error) {
	if i.cfg.Detached {
		if err := i.clearTheWay(); err != nil {
			return nil, err
		}
		return startDetached(cmd)
	}
	dieWithParent(cmd.SysProcAttr, Immediate.signal())
	return startProcess(cmd)
}

// awaitReady watches postmaster.pid, which costs nothing, and then proves by a
// connection what it says. A server that refuses us by name is up.
func (i *Instance) awaitReady(ctx context.Context) error {
	err := i.poll(ctx, func() (bool, error) { return i.reportsReady(), nil })
	if err != nil {
		return err
	}
	conn, err := i.Connect(ctx)
	if _, refused := errors.AsType[*pgconn.PgError](err); refused {
		return nil
	}
	if err != nil {
		return err
	}
	return i.failed(conn.Close(ctx))
}

// reportsReady reads the status line that the postmaster keeps for pg_ctl. The
// file of a crashed predecessor says ready as well, but names another process.
func (i *Instance) reportsReady() bool { return i.Status() == "ready" }

// complaints returns what the server wrote from an offset of its log on, as an
// error; at most the last dozen lines.
func (i *Instance) complaints(from int64) error {
	log, err := os.Open(i.cfg.Log)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.NewSectionReader(log, from, 1<<20))
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	lines = lines[max(0, len(lines)-12):]
	return fmt.Errorf("the server's log ends with:\n%s", bytes.Join(lines, []byte("\n")))
}

// Stop asks the server to stop and returns when it has; a server that does not
// run is no error. If ctx ends first, the server goes on stopping. A frozen
// server does not hear it: thaw it first.
func (i *Instance) Stop(ctx context.Context, mode StopMode) error {
	i.control.Lock()
	defer i.control.Unlock()
	p := i.current()
	if p == nil {
		return nil
	}
	return i.failed(p.stop(ctx, mode))
}

// stop asks the process to stop and waits for its end.
func (p *process) stop(ctx context.Context, mode StopMode) error {
	if err := p.signal(mode.signal()); err != nil {
		return err
	}
	select {
	case <-p.done:
		p.running.Wait()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("still stopping: %w", context.Cause(ctx))
	}
}

// FastStop is Stop in the mode Fast that says where the log of the server ends:
// behind the checkpoint that it wrote last, or for a replica behind what it has
// received. The error is [ErrNotClean] if the server ended in another way.
func (i *Instance) FastStop(ctx context.Context) (wal.Position, error) {
	if err := i.Stop(ctx, Fast); err != nil {
		return wal.Position{}, err
	}
	c, err := i.ControlData(ctx)
	if err != nil {
		return wal.Position{}, err
	}
	if !c.State.Clean() {
		return wal.Position{}, i.failed(fmt.Errorf("%w: it is %q", ErrNotClean, c.State))
	}
	return i.WALEnd(ctx)
}

// Close ends the server by whatever it takes: an immediate stop, which takes a
// few milliseconds and leaves nothing in the kernel, else Kill. One that does
// not run is no error.
func (i *Instance) Close() error {
	if !i.Running() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), settleTimeout, errors.New("does not stop"))
	defer cancel()
	if err := errors.Join(i.Thaw(), i.Stop(ctx, Immediate)); err == nil {
		return nil
	}
	return i.Kill()
}

// Kill ends all processes of the server at one moment, as the crash of its
// machine would, frozen or not. When it returns they are gone and the port is
// free. It does not wait for a Start or Stop under way, which then fails or
// returns.
func (i *Instance) Kill() error { return i.failed(i.kill()) }

func (i *Instance) kill() error {
	p := i.current()
	if p == nil {
		return nil
	}
	return p.killTree()
}

// Freeze stops all processes of the server where they stand, as a hung machine
// would; its sockets stay open. Freezing twice changes nothing.
func (i *Instance) Freeze() error {
	p, err := i.runningServer()
	if err != nil {
		return err
	}
	_, err = p.freeze()
	return i.failed(err)
}

// Thaw lets a frozen server go on.
func (i *Instance) Thaw() error {
	p, err := i.runningServer()
	if err != nil {
		return err
	}
	return i.failed(p.thaw())
}

// Running reports whether the postmaster lives. A frozen one does.
func (i *Instance) Running() bool {
	p := i.current()
	return p != nil && p.alive()
}

// PID returns the postmaster's process id, or 0 if it does not run.
func (i *Instance) PID() int {
	if p := i.current(); p != nil && p.alive() {
		return p.pid
	}
	return 0
}

// Done returns a channel that is closed when the postmaster started or adopted
// last has ended, milliseconds after. It is closed already if there was none, and
// stays open if that one was released.
func (i *Instance) Done() <-chan struct{} {
	if p := i.current(); p != nil {
		return p.done
	}
	never := make(chan struct{})
	close(never)
	return never
}

// current returns the postmaster started or adopted last; nil if there was none.
func (i *Instance) current() *process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.server
}

// runningServer returns the living postmaster.
func (i *Instance) runningServer() (*process, error) {
	p := i.current()
	if p == nil || !p.alive() {
		return nil, i.failed(errStopped)
	}
	return p, nil
}
