package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/heliosdb/helios/internal/pgctl"
)

// localProvider runs servers of this machine's own programs.
type localProvider struct{}

// Available implements [Provider].
func (localProvider) Available(context.Context) error {
	_, err := pgctl.FindBinaries()
	return err
}

// Fleet implements [Provider].
func (localProvider) Fleet(ctx context.Context) (Fleet, error) {
	if _, err := run.template(ctx, false); err != nil {
		return nil, err
	}
	dir, err := run.newDir()
	if err != nil {
		return nil, err
	}
	return &localFleet{dir: dir}, nil
}

// run holds what all local clusters of this process share.
var run localRun

// localRun is a temporary directory with an initialised data directory, which
// is copied for every server: initdb takes a second, a copy a tenth of it. Copies
// have its system identifier; foreign servers are copies of another one.
type localRun struct {
	mu      sync.Mutex
	dir     string          // guarded by mu; "" before the first cluster
	reaper  *os.File        // guarded by mu; while it is open, dir is kept
	copies  *pgctl.Instance // guarded by mu; the initialised server, never started
	foreign *pgctl.Instance // guarded by mu; likewise
	fleets  int             // guarded by mu; how many directories were made
}

// template returns the server to copy, made at the first call that succeeds.
func (r *localRun) template(ctx context.Context, foreign bool) (*pgctl.Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept, name := &r.copies, "template"
	if foreign {
		kept, name = &r.foreign, "foreign"
	}
	if *kept != nil {
		return *kept, nil
	}
	if err := r.makeDirLocked(); err != nil {
		return nil, err
	}
	t, err := pgctl.New(pgctl.Config{Name: name, Dir: filepath.Join(r.dir, name)})
	if err != nil {
		return nil, err
	}
	if err := t.Init(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(t.Dir()))
	}
	*kept = t
	return t, nil
}

// makeDirLocked makes the directory and starts the shell that removes it when
// this process has ended, by whatever cause: the shell's input then ends.
func (r *localRun) makeDirLocked() error {
	if r.dir != "" {
		return nil
	}
	dir, err := pgctl.MakeTempDir("helios-")
	if err != nil {
		return err
	}
	in, hold, err := os.Pipe()
	if err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	defer in.Close() //nolint:errcheck // the shell has its own
	const script = `trap "" INT TERM HUP; read -r _; for i in 1 2 3 4 5 6 7 8 9; do rm -rf "$0" && exit; sleep 0.3; done`
	shell := exec.Command("/bin/sh", "-c", script, dir) //nolint:noctx // it outlives us
	shell.Stdin, shell.Dir = in, "/"
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := shell.Start(); err != nil {
		return errors.Join(err, hold.Close(), os.Remove(dir))
	}
	r.dir, r.reaper = dir, hold
	return nil
}

// newDir names the directory of a cluster, which is not made yet.
func (r *localRun) newDir() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fleets++
	dir := filepath.Join(r.dir, "c"+strconv.Itoa(r.fleets))
	return dir, pgctl.MakeDir(dir)
}

// localFleet is the servers of one cluster below one directory.
type localFleet struct {
	dir string

	mu      sync.Mutex
	servers []*LocalServer // guarded by mu
}

// LocalServer is a server of this machine's own programs.
type LocalServer struct {
	*pgctl.Instance
	port int
}

// launchAttempts is how often another port is tried when something else took
// the chosen one before the server did.
const launchAttempts = 3

// Launch implements [Fleet].
func (f *localFleet) Launch(ctx context.Context, spec ServerSpec) (Server, error) {
	for attempt := 1; ; attempt++ {
		s, err := f.launch(ctx, spec)
		if err == nil {
			f.mu.Lock()
			f.servers = append(f.servers, s)
			f.mu.Unlock()
			return s, nil
		}
		if attempt == launchAttempts || !strings.Contains(err.Error(), "Address already in use") {
			return nil, err
		}
	}
}

func (f *localFleet) launch(ctx context.Context, spec ServerSpec) (_ *LocalServer, err error) {
	template, err := run.template(ctx, spec.Foreign)
	if err != nil {
		return nil, err
	}
	port, err := TakePort(ctx)
	if err != nil {
		return nil, err
	}
	i, err := pgctl.New(pgctl.Config{
		Binaries: template.Binaries(),
		Name:     spec.Name,
		Dir:      filepath.Join(f.dir, spec.Name),
		Port:     port,
		Settings: localSettings(spec.Settings),
	})
	if err != nil {
		GivePort(port)
		return nil, err
	}
	s := &LocalServer{Instance: i, port: port}
	if err := s.begin(ctx, template, spec.Upstream); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// begin copies the template and starts it. A replica is a copy as well: the
// primary still has all WAL since it was made.
func (s *LocalServer) begin(ctx context.Context, template *pgctl.Instance, upstream Server) error {
	if err := s.Clone(ctx, template); err != nil {
		return err
	}
	if upstream != nil {
		if err := s.SetStandby(upstream.Conninfo(filepath.Base(s.Dir()))); err != nil {
			return err
		}
	}
	return s.Start(ctx)
}

// localSettings adds what makes a local server fast to start and to throw away.
func localSettings(more map[string]string) map[string]string {
	set := map[string]string{
		"dynamic_shared_memory_type": "mmap", // nothing in /dev/shm outlives a killed server
		"log_line_prefix":            "%m [%p] %a ",
	}
	maps.Copy(set, more)
	return set
}

// Conninfo implements [Server].
func (s *LocalServer) Conninfo(applicationName string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable application_name=%s",
		s.port, pgctl.Superuser, applicationName)
}

// Configure implements [Server].
func (s *LocalServer) Configure(ctx context.Context, set map[string]string) error {
	if err := s.Instance.Configure(set); err != nil || !s.Running() {
		return err
	}
	return s.Reload(ctx)
}

// Rejoin implements [Server]. A server that cannot be rewound is cloned.
func (s *LocalServer) Rejoin(ctx context.Context, upstream Server) error {
	if err := s.Close(); err != nil {
		return err
	}
	err := s.Rewind(ctx, upstream.Conninfo(""))
	if err != nil {
		if err := errors.Join(os.RemoveAll(s.Dir()), s.CloneFrom(ctx, upstream.Conninfo(""))); err != nil {
			return err
		}
	}
	if err := s.SetStandby(upstream.Conninfo(filepath.Base(s.Dir()))); err != nil {
		return err
	}
	return s.Start(ctx)
}

// logTail is how much of a server's log is shown, in bytes.
const logTail = 8 << 10

// Log implements [Server] with the last few kilobytes.
func (s *LocalServer) Log() (string, error) {
	text, err := os.ReadFile(s.Instance.Log())
	if len(text) > logTail {
		text = text[len(text)-logTail:]
	}
	return string(text), err
}

// remove ends the server and deletes its files.
func (s *LocalServer) remove() error {
	defer GivePort(s.port)
	//nolint:contextcheck // clean-up goes on when the caller's context has ended
	return errors.Join(s.Close(), s.Remove(context.Background()))
}

// Close implements [Fleet].
func (f *localFleet) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := make([]error, len(f.servers)+1)
	var removing sync.WaitGroup
	for n, s := range f.servers {
		removing.Go(func() { errs[n] = s.remove() })
	}
	removing.Wait()
	errs[len(f.servers)] = os.RemoveAll(f.dir)
	f.servers = nil
	return errors.Join(errs...)
}
