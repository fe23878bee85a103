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
func (localProvider) Fleet(context.Context) (Fleet, error) {
	dir, err := run.newDir()
	if err != nil {
		return nil, err
	}
	return &localFleet{dir: dir}, nil
}

// run holds what all local clusters of this process share.
var run localRun

// localRun is a temporary directory with initialised data directories, one for
// each kind of server, which are copied for every server: initdb takes a second, a
// copy a tenth of it. Copies have the system identifier of what they were copied
// from.
type localRun struct {
	mu     sync.Mutex
	dir    string                           // guarded by mu; "" before the first cluster
	reaper *os.File                         // guarded by mu; while it is open, dir is kept
	copies map[templateKind]*pgctl.Instance // guarded by mu; the initialised servers, never started
	tls    *TLS                             // guarded by mu; nil before the first cluster with it
	fleets int                              // guarded by mu; how many directories were made
}

// templateKind says what the copies of a data directory have in common.
type templateKind struct {
	password string // of the superuser; "" for none
	foreign  bool   // they belong to another cluster than those that are not
}

// template returns the server to copy, made at the first call that succeeds.
func (r *localRun) template(ctx context.Context, kind templateKind) (*pgctl.Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.copies[kind]; t != nil {
		return t, nil
	}
	if err := r.makeDirLocked(); err != nil {
		return nil, err
	}
	name := "template" + strconv.Itoa(len(r.copies))
	t, err := pgctl.New(pgctl.Config{Name: name, Dir: filepath.Join(r.dir, name), Password: kind.password})
	if err != nil {
		return nil, err
	}
	if err := t.Init(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(t.Dir()))
	}
	if r.copies == nil {
		r.copies = map[templateKind]*pgctl.Instance{}
	}
	r.copies[kind] = t
	return t, nil
}

// speakTLS returns what all servers of the run that speak TLS have in common.
func (r *localRun) speakTLS() (*TLS, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tls != nil {
		return r.tls, nil
	}
	if err := r.makeDirLocked(); err != nil {
		return nil, err
	}
	t, err := newTLS(filepath.Join(r.dir, "tls"))
	if err == nil {
		r.tls = t
	}
	return t, err
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
	if err := r.makeDirLocked(); err != nil {
		return "", err
	}
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
	tls  *TLS // nil if clients do not speak it
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
	template, err := run.template(ctx, templateKind{password: spec.TLS.password(), foreign: spec.Foreign})
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
		Settings: localSettings(spec),
	})
	if err != nil {
		GivePort(port)
		return nil, err
	}
	s := &LocalServer{Instance: i, port: port, tls: spec.TLS}
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
func localSettings(spec ServerSpec) map[string]string {
	set := map[string]string{
		"dynamic_shared_memory_type": "mmap", // nothing in /dev/shm outlives a killed server
		"log_line_prefix":            "%m [%p] %a ",
	}
	maps.Copy(set, spec.TLS.Settings(spec.TLS.dir()))
	maps.Copy(set, spec.Settings)
	return set
}

// Conninfo implements [Server].
func (s *LocalServer) Conninfo(applicationName string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres %s application_name=%s",
		s.port, pgctl.Superuser, s.tls.Conninfo(s.tls.dir()), applicationName)
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
