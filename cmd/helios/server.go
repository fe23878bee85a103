package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/heliosdb/helios/internal/systemd"
	"github.com/heliosdb/helios/server"
	"github.com/heliosdb/helios/server/config"
)

// serverCommand runs a companion.
func serverCommand() command {
	return command{
		name:    "server",
		args:    "",
		summary: "run the companion of a PostgreSQL server",
		about: `One runs beside each PostgreSQL. Three on one machine, in three terminals:

  helios server --name n1 --pgdata n1 --listen 127.0.0.1:7101 --postgres 127.0.0.1:5501
  helios server --name n2 --pgdata n2 --listen 127.0.0.1:7102 --postgres 127.0.0.1:5502 --join 127.0.0.1:7101
  helios server --name n3 --pgdata n3 --listen 127.0.0.1:7103 --postgres 127.0.0.1:5503 --join 127.0.0.1:7101

An empty --pgdata is filled: by initdb where a new cluster is made, else by a clone. One with
a server in it is adopted. What the companion remembers is in --state: with that there, neither
--join nor an empty directory counts.

Every flag is also a variable, HELIOS_LEASE for --lease, and a line of the file that --config
names. helios config prints what would be used.

SIGTERM and Ctrl-C end it in order, and leave PostgreSQL running. On SIGHUP the file and the
environment are read again, for log_level; certificates are read again by themselves.
docs/companion.md is for operators.`,
		flags: func(fs *flag.FlagSet) action {
			r := &serving{loader: config.Register(fs)}
			return r.run
		},
	}
}

// serving is one run of the command.
type serving struct {
	loader *config.Loader
	level  slog.LevelVar
}

// run is a companion until ctx ends or the process is told to stop.
func (r *serving) run(ctx context.Context, s streams, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Sprintf("server: %q is not understood", args[0]), "flags that are on or off are written --witness, or --auto_failover=off")
	}
	effective, err := r.loader.Load(os.Environ())
	if err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("server: %w", err), hint: "helios config shows where each value comes from"}
	}
	cfg := effective.Config
	r.level.Set(cfg.LogLevel)
	log := newLog(s.err, cfg.LogFormat, &r.level)
	for _, text := range effective.Warnings {
		log.WarnContext(ctx, "configuration", "warning", text)
	}
	running, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer r.attend(running, stop, log, cfg)()
	err = server.Run(running, cfg, log)
	if err == nil || running.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return failed(fmt.Errorf("server: %w", err), "")
}

// newLog writes to w as operators want it.
func newLog(w io.Writer, format config.LogFormat, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// attend answers signals and the service manager while the companion runs. What it
// returns ends that.
func (r *serving) attend(ctx context.Context, stop context.CancelFunc, log *slog.Logger, cfg config.Config) (done func()) {
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	var attending sync.WaitGroup
	attending.Go(func() { r.reloadOn(ctx, hangUps, log) })
	attending.Go(func() {
		if err := systemd.ReadyOnceOpen(ctx, cfg.Listen); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "service manager not told", "error", err)
		}
	})
	told := context.AfterFunc(ctx, func() {
		log.InfoContext(ctx, "told to stop")
		systemd.Notify(context.WithoutCancel(ctx), "STOPPING=1") //nolint:errcheck // it will see the end anyway
	})
	return func() {
		told()
		stop()
		signal.Stop(hangUps)
		attending.Wait()
	}
}

// reloadOn takes what may change without a restart, for each signal, until ctx ends.
func (r *serving) reloadOn(ctx context.Context, signals <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		effective, err := r.loader.Load(os.Environ())
		if err != nil {
			log.ErrorContext(ctx, "configuration not reloaded", "error", err)
			continue
		}
		r.level.Set(effective.Config.LogLevel)
		log.InfoContext(ctx, "configuration reloaded", "log_level", effective.Config.LogLevel)
	}
}
