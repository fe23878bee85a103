package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/server/config"
	"github.com/heliosdb/helios/wal/relay"
)

// walRelayCommand runs one relay.
func walRelayCommand() command {
	return command{
		name:    "wal relay",
		args:    "--source DSN",
		summary: "stream WAL from one server to any number of standbys",
		about: `DSN is the server to follow: postgres://repl@db1:5432, a list of hosts of which
the primary is taken, another relay, or helios://repl@db1,db2,db3. The user needs
the REPLICATION attribute. A password is better left out of it: PGPASSWORD and the
password file are read as usual.

A standby streams through the relay when its primary_conninfo names it; behind it
name the primary, so that the standby goes there when the relay is away:

  primary_conninfo = 'host=relay,db1 port=5433,5432 user=repl application_name=s1'
  wal_retrieve_retry_interval = 500ms

From a source that is a relay itself the WAL comes in LZ4 frames. --acknowledge
says what the source is told, and with it what a synchronous commit waits for
when synchronous_standby_names lists --name: none, receipt (what is on disk in
--spool_dir; without it, only for looking at), or 'ANY 1 (s1, s2)'.

Without --users only this machine may subscribe, and anybody on it. A line of that
file is a name and the verifier that pg_authid.rolpassword has, or a password.

With --tls_client_ca a client certificate whose common name is the user lets in who
is not in that file; --require_tls refuses connections without TLS.

It runs until it is interrupted, and reads --users and the certificates anew on
SIGHUP. "helios wal stats" asks it how it is; docs/relay.md is for operators.`,
		flags: func(fs *flag.FlagSet) action {
			w := &walRelay{cfg: relay.DefaultConfig()}
			fs.StringVar(&w.source, "source", "", "`DSN` of the server to follow")
			fs.StringVar(&w.listen, "listen", "127.0.0.1:5433", "`ADDR` to serve standbys on, host:port")
			fs.StringVar(&w.cfg.Name, "name", w.cfg.Name, "application_`NAME` at the source")
			fs.Var(config.SizeOf(&w.cfg.BufferSize), "wal_buffer_size", "`SIZE` of the WAL kept in memory; it is taken as it is needed")
			fs.Var(config.SizeOf(&w.cfg.BatchSize), "wal_batch_size", "`SIZE` of the WAL in one frame to another relay, at most")
			fs.BoolVar(&w.cfg.Compression, "enable_compression", w.cfg.Compression, "ask a source that is a relay for LZ4, which it uses where it pays")
			fs.StringVar(&w.cfg.WALDir, "wal_dir", "", "`DIR` pg_wal of a server on this machine, to read older WAL from")
			fs.StringVar(&w.cfg.SpoolDir, "spool_dir", "", "`DIR` to keep WAL in; nothing is kept if it is empty")
			fs.Var(config.SizeOf(&w.cfg.Keep), "wal_keep", "`SIZE` of what is kept in --spool_dir")
			fs.TextVar(&w.cfg.Acknowledge, "acknowledge", w.cfg.Acknowledge, "`WHAT` the source is told")
			fs.StringVar(&w.cfg.Slot, "slot", "", "`NAME` of a slot at the source that holds WAL for the standbys; it is made if it is missing")
			fs.Var(config.SizeOf(&w.cfg.SlotLimit), "slot_limit", "`SIZE` of the WAL it holds, at most")
			fs.DurationVar(&w.cfg.SenderTimeout, "wal_sender_timeout", w.cfg.SenderTimeout, "`DURATION` after which a silent standby is disconnected")
			fs.DurationVar(&w.cfg.SourceTimeout, "source_timeout", w.cfg.SourceTimeout, "`DURATION` after which a silent source is left")
			fs.DurationVar(&w.cfg.OrphanTimeout, "orphan_timeout", w.cfg.OrphanTimeout, "`DURATION` without a source after which standbys are turned away")
			fs.DurationVar(&w.cfg.ShutdownGrace, "shutdown_grace", w.cfg.ShutdownGrace, "`DURATION` that the source's shutdown waits for acknowledgements")
			fs.DurationVar(&w.cfg.LagProbe, "lag_probe", w.cfg.LagProbe, "`DURATION` between two questions to a standby that has not applied everything")
			fs.StringVar(&w.users, "users", "", "`FILE` of who may subscribe; nobody else may read it")
			fs.StringVar(&w.cert, "tls_cert", "", "`FILE` with the certificate for standbys that want TLS")
			fs.StringVar(&w.key, "tls_key", "", "`FILE` with the key of --tls_cert")
			fs.StringVar(&w.clientCA, "tls_client_ca", "", "`FILE` with the authority of client certificates")
			fs.BoolVar(&w.cfg.RequireTLS, "require_tls", false, "refuse who does not speak TLS")
			fs.BoolVar(&w.quiet, "quiet", false, "log warnings and errors only")
			return w.run
		},
	}
}

// walRelay is one run of the command.
type walRelay struct {
	cfg                   relay.Config
	source, listen, users string
	cert, key, clientCA   string
	quiet                 bool

	pair atomic.Pointer[tls.Certificate] // as it was read last
}

// run relays until ctx ends or the process is told to stop.
func (w *walRelay) run(ctx context.Context, s streams, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Sprintf("wal relay: %q is not understood", args[0]), "helios help wal relay")
	}
	if err := w.configure(s.err); err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("wal relay: %w", plainWAL(err)), hint: "helios help wal relay"}
	}
	r, err := relay.New(w.cfg)
	if err != nil {
		return &failure{code: exitUsage, err: fmt.Errorf("wal relay: %w", plainWAL(err)), hint: "helios help wal relay"}
	}
	var network net.ListenConfig
	listener, err := network.Listen(ctx, "tcp", w.listen)
	if err != nil {
		return failed(fmt.Errorf("wal relay: %w", err), "choose another address with --listen")
	}
	if err := w.guard(listener); err != nil {
		listener.Close() //nolint:errcheck // nobody was let in
		return err
	}
	running, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	defer context.AfterFunc(running, func() { w.cfg.Log.InfoContext(ctx, "told to stop") })()
	var reloading sync.WaitGroup
	defer reloading.Wait()
	defer stop()
	reloading.Go(func() { w.reloadOn(running, hangUps, r) })
	w.cfg.Log.InfoContext(ctx, "relaying", "listen", listener.Addr().String(), "acknowledge", w.cfg.Acknowledge.String())
	if err := r.Run(running, listener); running.Err() == nil {
		return failed(fmt.Errorf("wal relay: %w", plainWAL(err)), "")
	}
	return nil
}

// reloadOn reads users and certificates anew for each signal, until ctx ends. What
// cannot be read leaves everything as it was.
func (w *walRelay) reloadOn(ctx context.Context, signals <-chan os.Signal, r *relay.Relay) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if err := w.reload(r); err != nil {
			w.cfg.Log.ErrorContext(ctx, "not reloaded", "error", err)
		} else {
			w.cfg.Log.InfoContext(ctx, "reloaded", "users", w.users, "certificate", w.cert)
		}
	}
}

func (w *walRelay) reload(r *relay.Relay) error {
	if w.cert != "" {
		pair, err := tls.LoadX509KeyPair(w.cert, w.key)
		if err != nil {
			return err
		}
		w.pair.Store(&pair)
	}
	if w.users == "" {
		return nil
	}
	users, err := readUsers(w.users)
	if err != nil {
		return err
	}
	return r.SetUsers(users)
}

// plainWAL drops the prefix of the relay's errors, which the command's says too.
func plainWAL(err error) error {
	if text, ok := strings.CutPrefix(err.Error(), "relay: "); ok {
		return errors.New(text)
	}
	return plain(err)
}

// guard refuses to serve other machines without knowing whom.
func (w *walRelay) guard(l net.Listener) error {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() || len(w.cfg.Users) > 0 || w.cfg.TLS != nil && w.cfg.TLS.ClientCAs != nil {
		return nil
	}
	return usageError(fmt.Sprintf("wal relay: %s can be reached from other machines, and anybody there would get the WAL", l.Addr()),
		"say who may with --users, or with --tls_client_ca")
}

// configure makes a configuration of the flags.
func (w *walRelay) configure(log io.Writer) error {
	level := slog.LevelInfo
	if w.quiet {
		level = slog.LevelWarn
	}
	w.cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	if w.source == "" {
		return errors.New("no --source: say which server to follow")
	}
	var err error
	if w.cfg.Source, err = walSource(w.source); err != nil {
		return err
	}
	if w.users != "" {
		if w.cfg.Users, err = readUsers(w.users); err != nil {
			return err
		}
	}
	return w.configureTLS()
}

// walSource makes of a DSN the servers that WAL may come from.
func walSource(dsn string) ([]*pgconn.Config, error) {
	if !strings.HasPrefix(dsn, "helios:") {
		return relay.ParseSource(dsn)
	}
	cfg, err := helios.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	var source []*pgconn.Config
	for _, host := range cfg.Hosts {
		conf, err := cfg.ConnConfig(host)
		if err != nil {
			return nil, err
		}
		source = append(source, &conf.Config)
	}
	return source, nil
}

// configureTLS reads the certificates.
func (w *walRelay) configureTLS() error {
	switch {
	case w.cert == "" && w.key == "" && w.clientCA == "":
		return nil
	case w.cert == "" || w.key == "":
		return errors.New("TLS needs both --tls_cert and --tls_key")
	}
	pair, err := tls.LoadX509KeyPair(w.cert, w.key)
	if err != nil {
		return err
	}
	w.pair.Store(&pair)
	w.cfg.TLS = &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.pair.Load(), nil },
		MinVersion:     tls.VersionTLS12,
	}
	if w.clientCA == "" {
		return nil
	}
	pem, err := os.ReadFile(w.clientCA)
	if err != nil {
		return err
	}
	w.cfg.TLS.ClientCAs = x509.NewCertPool()
	if !w.cfg.TLS.ClientCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", w.clientCA)
	}
	w.cfg.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	return nil
}

// readUsers reads lines of a name and a verifier or password. Quotes around
// either are left out, so that pgbouncer's userlist.txt can be read.
func readUsers(name string) (map[string]replication.Verifier, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	users := make(map[string]replication.Verifier)
	in := bufio.NewScanner(f)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, secret, _ := strings.Cut(line, " ")
		user, secret = strings.Trim(user, `"`), strings.Trim(strings.TrimSpace(secret), `"`)
		if user == "" || secret == "" {
			return nil, fmt.Errorf("%s: line %d has not both a name and a verifier", name, n)
		}
		verifier, err := verifierOf(secret)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: the verifier of %s cannot be used; it has to begin with SCRAM-SHA-256$, or be a password", name, n, user)
		}
		users[user] = verifier
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("%s names nobody", name)
	}
	return users, nil
}

func verifierOf(secret string) (replication.Verifier, error) {
	if len(secret) == 35 && strings.HasPrefix(secret, "md5") {
		return replication.Verifier{}, errors.New("an MD5 hash: SCRAM-SHA-256 is spoken here")
	}
	if strings.HasPrefix(secret, "SCRAM-SHA-256$") {
		return replication.ParseVerifier(secret)
	}
	return replication.NewVerifier(secret)
}
