package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/heliosdb/helios/internal/durable"
)

// toolLock is a file in Config.State that is locked while a tool works on the data
// directory: by the tool, and by whatever it starts, so that the lock outlives us as
// they do.
const toolLock = "tool.lock"

// ErrToolRuns means that a tool still changes the data directory that was started by
// a process before this one.
var ErrToolRuns = errors.New("initdb, pg_basebackup, pg_rewind or a recovery that another process has begun still runs")

// toolPatience is how long such a tool has to end, which was told to when its parent
// was gone.
const toolPatience = 10 * time.Second

// tool runs a program that changes the server's files, to its end, and returns what
// it said on standard error. It does not outlive this process.
func (i *Instance) tool(ctx context.Context, password, program string, args ...string) (said string, err error) {
	lock, err := i.lockTools(ctx)
	if err != nil {
		return "", err
	}
	cmd := i.user.withPassword(password).command(ctx, i.cfg.Binaries.Program(program), args...)
	if lock != nil {
		defer lock.Close() //nolint:errcheck // nothing was written to it
		cmd.ExtraFiles = []*os.File{lock}
	}
	_, said, err = runMortal(ctx, cmd)
	return said, err
}

// lockTools waits until no tool of a process before this one runs, and takes its
// place. A server that is not detached has nobody who would come after us: there it
// returns nil.
func (i *Instance) lockTools(ctx context.Context) (*os.File, error) {
	if !i.cfg.Detached {
		return nil, nil
	}
	if err := i.makeState(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, toolPatience, fmt.Errorf("waited for %v", toolPatience))
	defer cancel()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		lock, err := durable.Lock(filepath.Join(i.cfg.State, toolLock), ErrToolRuns)
		if !errors.Is(err, ErrToolRuns) {
			return lock, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

// AwaitTools returns when no tool runs any more that a process before this one has
// started on the data directory. What such a tool leaves is settled then.
func (i *Instance) AwaitTools(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(i.cfg.State, toolLock)); err != nil {
		return i.failed(ignoreGone(err)) // none ever ran
	}
	lock, err := i.lockTools(ctx)
	if err != nil || lock == nil {
		return i.failed(err)
	}
	return i.failed(lock.Close())
}
