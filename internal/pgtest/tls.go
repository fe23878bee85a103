package pgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/heliosdb/helios/internal/pgctl"
)

// TLS is what servers that take nobody without it have in common, and what
// their clients must know. It does not change.
type TLS struct {
	Authority *Authority        // whose certificate every server shows, for 127.0.0.1
	CAFile    string            // the authority's own certificate, on this machine
	Password  string            // of the superuser, and of those that CreateUser makes
	Files     map[string]string // contents, by name, of what servers read
}

// Names of files.
const (
	caFile          = "ca.crt"
	certificateFile = "server.crt"
	keyFile         = "server.key"
	hbaFile         = "hba.conf"
)

// hba lets nobody in over the network but by TLS and a password. The socket is
// for those who run the server.
const hba = `local     all,replication all     trust
hostssl   all,replication all all scram-sha-256
hostnossl all,replication all all reject
`

// TLSWanted reports whether $HELIOS_TEST_TLS asks for TLS in every cluster.
func TLSWanted() (bool, error) {
	text := os.Getenv("HELIOS_TEST_TLS")
	if text == "" {
		return false, nil
	}
	wanted, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("pgtest: HELIOS_TEST_TLS=%s: want 1 or 0", text)
	}
	return wanted, nil
}

// newTLS makes an authority, a certificate and a password, and dir with what the
// servers of this machine read.
func newTLS(dir string) (*TLS, error) {
	authority, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	certificate, key, err := authority.Issue("127.0.0.1")
	if err != nil {
		return nil, err
	}
	t := &TLS{
		Authority: authority,
		CAFile:    filepath.Join(dir, caFile),
		Password:  rand.Text(),
		Files: map[string]string{
			caFile: string(authority.PEM()), certificateFile: string(certificate), keyFile: string(key), hbaFile: hba,
		},
	}
	errs := []error{pgctl.MakeDir(dir)}
	for name, content := range t.Files {
		errs = append(errs, pgctl.WriteFile(filepath.Join(dir, name), content))
	}
	return t, errors.Join(errs...)
}

// Settings returns what postgresql.conf says of it where the server finds the
// files in dir; nothing for a nil TLS.
func (t *TLS) Settings(dir string) map[string]string {
	if t == nil {
		return nil
	}
	return map[string]string{
		"ssl":                 "on",
		"ssl_cert_file":       filepath.Join(dir, certificateFile),
		"ssl_key_file":        filepath.Join(dir, keyFile),
		"hba_file":            filepath.Join(dir, hbaFile),
		"password_encryption": "scram-sha-256", // PostgreSQL 13 has md5
	}
}

// Conninfo returns what a server's connection string to another one says of it,
// with the files in dir. libpq matches IP addresses in certificates from
// PostgreSQL 15 on only, so that verify-full is too much to ask.
func (t *TLS) Conninfo(dir string) string {
	if t == nil {
		return "sslmode=disable"
	}
	return fmt.Sprintf("sslmode=verify-ca sslrootcert='%s' channel_binding=require password=%s", filepath.Join(dir, caFile), t.Password)
}

// dir returns where the files are on this machine.
func (t *TLS) dir() string {
	if t == nil {
		return ""
	}
	return filepath.Dir(t.CAFile)
}

// password returns the superuser's; "" for a nil TLS.
func (t *TLS) password() string {
	if t == nil {
		return ""
	}
	return t.Password
}

// params returns what a client's DSN says of it, but for the password.
func (t *TLS) params() []string {
	if t == nil {
		return []string{"sslmode=disable"}
	}
	return []string{"sslmode=verify-full", "sslrootcert=" + t.CAFile, "channel_binding=require"}
}
