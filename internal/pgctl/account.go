package pgctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// account is the user that servers run as and that owns their files.
type account struct {
	uid, gid int
	groups   []uint32 // supplementary
	change   bool     // this process is root and has to become that user
	password string   // for a tool that connects somewhere
}

// withPassword returns the account with a password that its tools connect with.
func (a account) withPassword(password string) account {
	a.password = password
	return a
}

// serverUser returns this process's own user, or for root the user postgres,
// else nobody: PostgreSQL refuses to run as root.
var serverUser = sync.OnceValues(func() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return account{}, fmt.Errorf("pgctl: root cannot run a server, and there is neither a user postgres nor nobody: %w", err)
	}
	return accountOf(u)
})

// accountOf returns the account of a user that root becomes. Its groups count as well: on
// Debian one of them lets the server read its TLS key.
func accountOf(u *user.User) (account, error) {
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, err
	}
	a := account{uid: uid, gid: gid, change: true}
	groups, err := u.GroupIds()
	if err != nil {
		return a, nil //nolint:nilerr // where nobody can say, there are none but its own
	}
	for _, g := range groups {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			a.groups = append(a.groups, uint32(n))
		}
	}
	return a, nil
}

// ownerOf is serverUser for a data directory that may be another user's: root
// runs its server as that one.
func ownerOf(dir string) (account, error) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return serverUser()
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	if uid == 0 {
		return serverUser()
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return account{}, fmt.Errorf("pgctl: owner of %s: %w", dir, err)
	}
	return accountOf(u)
}

// MakeTempDir makes a directory for servers whose data is worth nothing. The
// server's user owns and can reach it, which is not so below testing.T.TempDir
// for a process of root. The caller removes it.
//
// It is below $TMPDIR if that is set, else on Linux in memory if there is plenty,
// because a data directory has a thousand files, and else where the system has
// its temporary files. Unix sockets inside have paths short enough for every
// system's limit.
func MakeTempDir(pattern string) (string, error) {
	owner, err := serverUser()
	if err != nil {
		return "", err
	}
	root := tempRoot()
	dir, err := os.MkdirTemp(root, pattern)
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(dir, 0o755), owner.own(dir)); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// tempRoot returns where MakeTempDir makes its directories.
func tempRoot() string {
	root := os.TempDir()
	switch {
	case os.Getenv("TMPDIR") == "" && memoryIsPlenty():
		return memoryDir
	case len(root) > 50: // sun_path holds 104 bytes on macOS
		return "/tmp"
	}
	return root
}

// MakeDir makes a directory that the server's user owns, in one that it can
// reach.
func MakeDir(dir string) error {
	owner, err := serverUser()
	if err != nil {
		return err
	}
	return errors.Join(os.Mkdir(dir, 0o755), owner.own(dir))
}

// WriteFile writes a file, or replaces it, that only the server's user can read.
func WriteFile(path, content string) error {
	owner, err := serverUser()
	if err != nil {
		return err
	}
	return owner.writeFile(path, content)
}

// own gives path to the server's user.
func (a account) own(path string) error {
	if !a.change {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// mkdir makes dir for the server's user alone; one that exists is left as it is.
func (a account) mkdir(dir string) error {
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return a.own(dir)
}

// writeFile replaces a file whole: a server never reads half of it.
func (a account) writeFile(path, content string) error {
	next := path + ".new"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		return err
	}
	return errors.Join(a.own(next), os.Rename(next, path))
}

// rewrite is writeFile of a file that exists: it stays whose it was, with the
// same mode, and a link stays a link.
func (a account) rewrite(path, content string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	next := target + ".new"
	if err := os.WriteFile(next, []byte(content), info.Mode().Perm()); err != nil {
		return err
	}
	err = os.Chmod(next, info.Mode().Perm())
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(next, int(owner.Uid), int(owner.Gid)))
	}
	return errors.Join(err, os.Rename(next, target))
}

// prepare makes cmd run as the server's user, in the language errors are
// recognised in, untouched by the PG* variables meant for clients.
func (a account) prepare(cmd *exec.Cmd) {
	// An interrupt typed at the terminal is for us, who then stop the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.change {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: a.groups}
	}
	for _, kv := range os.Environ() {
		switch {
		case strings.HasPrefix(kv, "PG"), strings.HasPrefix(kv, "LC_"), strings.HasPrefix(kv, "LANG"):
		case a.change && strings.HasPrefix(kv, "HOME="): // libpq gives up where it may not look for certificates
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	if a.password != "" {
		cmd.Env = append(cmd.Env, "PGPASSWORD="+a.password)
	}
	if cmd.Dir == "" {
		cmd.Dir = "/" // the caller's own may be closed to the server's user
	}
}

// output runs a program to its end and returns what it printed. The error
// quotes what it said on standard error.
func (a account) output(ctx context.Context, program string, args ...string) (string, error) {
	stdout, _, err := a.run(ctx, program, args...)
	return stdout, err
}

// run is output that returns what the program said on standard error, too.
func (a account) run(ctx context.Context, program string, args ...string) (printed, said string, err error) {
	return runCommand(ctx, a.command(ctx, program, args...))
}

// command makes the command of a program that runs as the server's user until ctx ends,
// and whatever it started with it: initdb and pg_rewind leave their work to a server.
func (a account) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	a.prepare(cmd)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a child of a killed tool may hold the pipes
	return cmd
}

// runMortal is runCommand of a program that is told to end when this process is gone,
// where the system can do that. It means the end of the thread which has started it,
// so that one is kept.
func runMortal(ctx context.Context, cmd *exec.Cmd) (printed, said string, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dieWithParent(cmd.SysProcAttr, syscall.SIGTERM) // upon which initdb tidies up
	return runCommand(ctx, cmd)
}

// runCommand runs cmd to its end, and to that of what it started if ctx ends.
func runCommand(ctx context.Context, cmd *exec.Cmd) (printed, said string, err error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	waited.RLock()
	err = cmd.Run()
	waited.RUnlock()
	said = strings.TrimSpace(stderr.String())
	if ctx.Err() != nil {
		if cmd.Process != nil {
			awaitGroup(cmd.Process.Pid)
		}
		return "", said, context.Cause(ctx)
	}
	if err != nil {
		return "", said, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said)
	}
	return stdout.String(), said, nil
}

// awaitGroup kills what is left of a group whose leader has ended, and waits until it is
// gone: as long as the kernel takes for it, and whoever inherited it. What it had open it
// has then let go of.
func awaitGroup(leader int) {
	for deadline := time.Now().Add(settleTimeout); syscall.Kill(-leader, syscall.SIGKILL) == nil && time.Now().Before(deadline); {
		reap(-leader) // where it is us who inherited it
		time.Sleep(watchInterval)
	}
}
