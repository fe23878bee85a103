package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often files are looked at, at most, for whether they have changed.
const checkEvery = time.Second

// An Identity is who this process is to others: a certificate with its key, and the
// authority that it believes. Files that change are read again, with the next handshake
// a second later.
type Identity struct {
	dir, file string
	log       *slog.Logger

	current atomic.Pointer[loaded]

	mu      sync.Mutex
	checked time.Time // guarded by mu; when the files were looked at
	refused [3]stamp  // guarded by mu; what could not be used, so that it is told once
}

// loaded is what was read together.
type loaded struct {
	pair   *tls.Certificate
	roots  *x509.CertPool
	stamps [3]stamp
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
}

// Load reads ca.crt and node.crt with node.key, or client.crt with client.key, in dir. log
// is told of changes; nil is silent.
func Load(dir string, log *slog.Logger) (*Identity, error) {
	file, err := leafIn(dir)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	i := &Identity{dir: dir, file: file, log: log}
	return i, i.Reload()
}

// Reload reads the files now. If they cannot be used, what was in use stays.
func (i *Identity) Reload() error {
	stamps, err := i.stamps()
	if err != nil {
		return err
	}
	key := i.path(i.file + ".key")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm()&0o007 != 0 {
		return errors.Join(err, fmt.Errorf("%s can be read by everybody; chmod 600 it", key))
	}
	pair, err := tls.LoadX509KeyPair(i.path(i.file+".crt"), key)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(i.path(AuthorityFile))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return fmt.Errorf("%s holds no certificate", i.path(AuthorityFile))
	}
	i.current.Store(&loaded{pair: &pair, roots: roots, stamps: stamps})
	return nil
}

func (i *Identity) path(file string) string { return filepath.Join(i.dir, file) }

// stamps looks at the files.
func (i *Identity) stamps() (s [3]stamp, err error) {
	for n, file := range []string{AuthorityFile, i.file + ".crt", i.file + ".key"} {
		info, err := os.Stat(i.path(file))
		if err != nil {
			return s, err
		}
		s[n] = stamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

// fresh returns what the files say, read again if they have changed.
func (i *Identity) fresh() *loaded {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.current.Load()
	if time.Since(i.checked) < checkEvery {
		return now
	}
	i.checked = time.Now()
	stamps, err := i.stamps()
	if err == nil && (stamps == now.stamps || stamps == i.refused) {
		return now
	}
	if err == nil {
		err = i.Reload()
	}
	if err != nil {
		i.refused = stamps
		i.log.ErrorContext(context.Background(), "certificates not read again", "directory", i.dir, "error", err)
		return now
	}
	i.log.InfoContext(context.Background(), "certificates read again", "directory", i.dir)
	return i.current.Load()
}

// Server returns a configuration for the side that accepts. Certificates of clients are
// always verified; required says whether there must be one.
func (i *Identity) Server(required bool) *tls.Config {
	auth := tls.VerifyClientCertIfGiven
	if required {
		auth = tls.RequireAndVerifyClientCert
	}
	made := func() *tls.Config {
		l := i.fresh()
		return &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: auth, ClientCAs: l.roots, Certificates: []tls.Certificate{*l.pair},
		}
	}
	c := made()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return made(), nil }
	return c
}

// Client returns a configuration for the side that dials. The certificate that it shows is
// always the newest; the authority that it believes is that of now.
func (i *Identity) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: i.fresh().roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.fresh().pair, nil },
	}
}

// Peer returns the common name of the client of a connection that a server has
// verified, and whether it is a node; "" if it has shown no certificate.
func Peer(cs *tls.ConnectionState) (name string, node bool) {
	if cs == nil || len(cs.VerifiedChains) == 0 {
		return "", false
	}
	name = cs.VerifiedChains[0][0].Subject.CommonName
	return name, name == NodeName
}
