package pgctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Superuser is the role that Init makes and that an Instance connects as.
const Superuser = "postgres"

// Config says where one server lives.
type Config struct {
	Binaries  Binaries          // zero: what FindBinaries finds
	Name      string            // for errors; "" means the base name of Dir
	Dir       string            // data directory, absolute; its parent exists and the server's user can reach it
	Port      int               // on 127.0.0.1 and for the socket
	SocketDir string            // under 90 bytes long, made if missing; "" means the parent of Dir
	Log       string            // file the server's output is appended to; "" means Dir + ".log"
	Settings  map[string]string // of postgresql.conf, as if given to Configure
	Password  string            // that Init gives to the superuser, for clients that come by TCP; "" asks nobody for one
}

// Instance is one PostgreSQL server of this machine, running or not. Its
// methods are safe for concurrent use, though of Start, Stop, Init, Clone and
// Rewind only one runs at a time.
type Instance struct {
	cfg  Config
	user account

	control sync.RWMutex // held by what begins or ends the server or replaces its files; shared by those who copy them

	mu       sync.Mutex
	settings map[string]string // guarded by mu
	server   *process          // guarded by mu; nil before the first start
}

// New describes a server and touches nothing.
func New(cfg Config) (*Instance, error) {
	if cfg.Binaries.Dir == "" {
		found, err := FindBinaries()
		if err != nil {
			return nil, err
		}
		cfg.Binaries = found
	}
	if !filepath.IsAbs(cfg.Dir) {
		return nil, fmt.Errorf("pgctl: data directory %q is not an absolute path", cfg.Dir)
	}
	user, err := serverUser()
	if err != nil {
		return nil, err
	}
	cfg.Name = cmp.Or(cfg.Name, filepath.Base(cfg.Dir))
	cfg.SocketDir = cmp.Or(cfg.SocketDir, filepath.Dir(cfg.Dir))
	cfg.Log = cmp.Or(cfg.Log, cfg.Dir+".log")
	i := &Instance{cfg: cfg, user: user, settings: map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(cfg.Port),
		"unix_socket_directories": cfg.SocketDir,
		"logging_collector":       "off", // the output goes to Config.Log
	}}
	maps.Copy(i.settings, cfg.Settings)
	return i, nil
}

// Dir returns the data directory.
func (i *Instance) Dir() string { return i.cfg.Dir }

// Log returns the file that the server's output is appended to.
func (i *Instance) Log() string { return i.cfg.Log }

// Binaries returns the release that the server belongs to.
func (i *Instance) Binaries() Binaries { return i.cfg.Binaries }

// Addr returns host and port of the server's TCP socket.
func (i *Instance) Addr() string { return "127.0.0.1:" + strconv.Itoa(i.cfg.Port) }

// ConnString returns what a superuser connects with, over the Unix socket, as a
// keyword/value string.
func (i *Instance) ConnString() string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable",
		quoteConn(i.cfg.SocketDir), i.cfg.Port, Superuser)
}

// Connect opens a superuser's connection over the Unix socket. The caller
// closes it.
func (i *Instance) Connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, i.ConnString())
	if err != nil {
		return nil, i.failed(err)
	}
	return conn, nil
}

// Init makes the data directory of a new cluster, whose superuser is
// [Superuser]. Connections from this machine need no password, unless the Config
// has one and they come by TCP. It takes a second or so and does not wait for
// the disk.
func (i *Instance) Init(ctx context.Context) error {
	i.control.Lock()
	defer i.control.Unlock()
	if err := i.user.mkdir(i.cfg.Dir, 0o700); err != nil {
		return i.failed(err)
	}
	args := []string{
		"--pgdata", i.cfg.Dir, "--username", Superuser,
		"--encoding", "UTF8", "--locale", "C", "--auth", "trust", "--no-sync",
	}
	if i.cfg.Password != "" {
		file := i.cfg.Dir + ".password"
		if err := i.user.writeFile(file, i.cfg.Password); err != nil {
			return i.failed(err)
		}
		defer os.Remove(file) //nolint:errcheck // it is in a directory that the caller removes
		args = append(args, "--auth-host", "scram-sha-256", "--pwfile", file)
	}
	_, err := i.user.output(ctx, i.cfg.Binaries.Program("initdb"), args...)
	return i.failed(err)
}

// Remove deletes the data directory and the log of a server that does not run,
// and the shared memory that a killed one left in the kernel.
func (i *Instance) Remove(ctx context.Context) error {
	i.control.Lock()
	defer i.control.Unlock()
	if i.Running() {
		return i.failed(errRunning)
	}
	err := i.freeSharedMemory(ctx)
	if logErr := os.Remove(i.cfg.Log); !errors.Is(logErr, fs.ErrNotExist) {
		err = errors.Join(err, logErr)
	}
	return i.failed(errors.Join(err, os.RemoveAll(i.cfg.Dir)))
}

// freeSharedMemory removes the System V segment that a crashed postmaster could
// not remove itself: the system has room for a few thousand. Its number stands
// in the seventh line of postmaster.pid (LOCK_FILE_LINE_SHMEM_KEY in
// miscadmin.h), a file that only a crash leaves behind.
func (i *Instance) freeSharedMemory(ctx context.Context) error {
	lines := i.lockFile()
	if len(lines) < 7 {
		return nil
	}
	fields := strings.Fields(lines[6])
	if len(fields) != 2 {
		return nil
	}
	_, err := i.user.output(ctx, "ipcrm", "-m", fields[1])
	return err
}

// lockFile returns the lines of postmaster.pid; none if there is no such file.
func (i *Instance) lockFile() []string {
	content, err := os.ReadFile(filepath.Join(i.cfg.Dir, "postmaster.pid"))
	if err != nil {
		return nil
	}
	return strings.Split(string(content), "\n")
}

var (
	errRunning = errors.New("is running")
	errStopped = errors.New("is not running")
)

// failed says which server err is about; nil stays nil.
func (i *Instance) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pgctl: %s: %w", i.cfg.Name, err)
}
