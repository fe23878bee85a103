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
	"sync"

	"github.com/jackc/pgx/v5"
)

// Superuser is the role that Init makes and that an Instance connects as, unless
// its Config names another.
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
	Superuser string            // "" means the constant Superuser

	// Detached is for a server that this process looks after and that outlives
	// it: see [Instance.Adopt]. Its configuration is somebody else's. Nothing is
	// set in it but what Settings and Configure say, and the port and the socket
	// directory if they are not zero; those of a running server are its own.
	Detached bool
	// State is a directory for what has to outlive the data directory, or must not
	// be in it while it is rewound. It is made when it is needed; "" means
	// Dir + ".pgctl".
	State string
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
	args     []string          // guarded by mu; command line of an adopted server, nil if none was
	loaded   bool              // guarded by mu; settings holds what the file of a process before us has
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
	owner := serverUser
	if cfg.Detached {
		owner = func() (account, error) { return ownerOf(cfg.Dir) }
	}
	user, err := owner()
	if err != nil {
		return nil, err
	}
	cfg.Dir = filepath.Clean(cfg.Dir)
	cfg.Name = cmp.Or(cfg.Name, filepath.Base(cfg.Dir))
	cfg.Log = cmp.Or(cfg.Log, cfg.Dir+".log")
	cfg.State = cmp.Or(cfg.State, cfg.Dir+".pgctl")
	cfg.Superuser = cmp.Or(cfg.Superuser, Superuser)
	if !cfg.Detached {
		cfg.SocketDir = cmp.Or(cfg.SocketDir, filepath.Dir(cfg.Dir))
	}
	i := &Instance{cfg: cfg, user: user, settings: cfg.baseSettings()}
	maps.Copy(i.settings, cfg.Settings)
	return i, nil
}

// baseSettings returns what is set in a server before anybody asks for more.
func (c Config) baseSettings() map[string]string {
	if !c.Detached {
		return map[string]string{
			"listen_addresses":        "127.0.0.1",
			"port":                    strconv.Itoa(c.Port),
			"unix_socket_directories": c.SocketDir,
			"logging_collector":       "off", // the output goes to Config.Log
		}
	}
	settings := map[string]string{}
	if c.Port != 0 {
		settings["port"] = strconv.Itoa(c.Port)
	}
	if c.SocketDir != "" {
		settings["unix_socket_directories"] = c.SocketDir
	}
	return settings
}

// Dir returns the data directory.
func (i *Instance) Dir() string { return i.cfg.Dir }

// Log returns the file that the server's output is appended to.
func (i *Instance) Log() string { return i.cfg.Log }

// Binaries returns the release that the server belongs to.
func (i *Instance) Binaries() Binaries { return i.cfg.Binaries }

// Addr returns host and port of the server's TCP socket.
func (i *Instance) Addr() string {
	_, port := i.endpoint()
	return "127.0.0.1:" + strconv.Itoa(port)
}

// endpoint returns the directory of the socket, or a host, and the port: of a
// detached server those it has told in postmaster.pid.
func (i *Instance) endpoint() (host string, port int) {
	if i.cfg.Detached {
		if lock, ok, err := readLockFile(i.cfg.Dir); ok && err == nil && lock.host() != "" {
			return lock.host(), lock.port
		}
	}
	return i.cfg.SocketDir, i.cfg.Port
}

// ConnString returns what a superuser connects with, over the Unix socket, as a
// keyword/value string. That of a detached server holds from its start, or its
// adoption, to its end.
func (i *Instance) ConnString() string {
	host, port := i.endpoint()
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable",
		quoteConn(host), port, quoteConn(i.cfg.Superuser))
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
// that of the Config. Connections from this machine need no password, unless the Config
// has one and they come by TCP. It takes a second or so, and waits for the disk
// only if the server is detached.
func (i *Instance) Init(ctx context.Context) error {
	i.control.Lock()
	defer i.control.Unlock()
	if err := i.AwaitTools(ctx); err != nil {
		return err
	}
	if err := i.user.mkdir(i.cfg.Dir); err != nil {
		return i.failed(err)
	}
	args := []string{
		"--pgdata", i.cfg.Dir, "--username", i.cfg.Superuser,
		"--encoding", "UTF8", "--locale", "C", "--auth", "trust",
	}
	if !i.cfg.Detached {
		args = append(args, "--no-sync")
	}
	if i.cfg.Password != "" {
		file := i.cfg.Dir + ".password"
		if err := i.user.writeFile(file, i.cfg.Password); err != nil {
			return i.failed(err)
		}
		defer os.Remove(file) //nolint:errcheck // it is in a directory that the caller removes
		args = append(args, "--auth-host", "scram-sha-256", "--pwfile", file)
	}
	_, err := i.tool(ctx, "", "initdb", args...)
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
// in postmaster.pid, a file that only a crash leaves behind.
func (i *Instance) freeSharedMemory(ctx context.Context) error {
	lock, ok, err := readLockFile(i.cfg.Dir)
	if err != nil || !ok || lock.shmem == "" {
		return nil //nolint:nilerr // a file that cannot be read names no segment
	}
	_, err = i.user.output(ctx, "ipcrm", "-m", lock.shmem)
	return err
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
