package integration_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// certificates makes an authority, and the certificate of a client of it. The
// server's user can read all of them.
func certificates(t *testing.T) (dir string, ops *certs.Identity) {
	t.Helper()
	root, err := pgctl.MakeTempDir("helios-certs-")
	pgtest.OK(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	dir = filepath.Join(root, "ca")
	pgtest.OK(t, certs.Init(certs.Request{Dir: dir, Now: time.Now()}))
	made, err := certs.Client(certs.Request{Dir: dir, Name: "ops", Now: time.Now()})
	pgtest.OK(t, err)
	ops, err = certs.Load(made, nil)
	pgtest.OK(t, err)
	return dir, ops
}

// certify gives a node a certificate that PostgreSQL's user owns.
func certify(t *testing.T, dir string, n *companions.Node) error {
	t.Helper()
	made, err := certs.Node(certs.Request{Dir: dir, Name: n.Name, Hosts: []string{"127.0.0.1"}, Now: time.Now()})
	if err != nil {
		return err
	}
	own := filepath.Join(filepath.Dir(dir), n.Name)
	if err := pgctl.MakeDir(own); err != nil {
		return err
	}
	for _, file := range []string{"ca.crt", "node.crt", "node.key"} {
		text, err := os.ReadFile(filepath.Join(made, file))
		if err != nil {
			return err
		}
		if err := pgctl.WriteFile(filepath.Join(own, file), string(text)); err != nil {
			return err
		}
	}
	n.Flags = append(n.Flags, "--tls="+own)
	return nil
}

// Everything between nodes is TLS with certificates on both sides: calls, the
// consensus, WAL, clones. Another node takes over, and the old one comes back.
func TestCompanionsSpeakTLS(t *testing.T) {
	dir, ops := certificates(t)
	o := companions.Options{
		Nodes: 3, TLS: ops.Client(),
		Keys:  "&companion_sslmode=verify-full&companion_sslrootcert=" + filepath.Join(dir, "ca.crt"),
		Place: func(n *companions.Node) error { return certify(t, dir, n) },
	}
	c := startCompanions(t, o)
	k := employ(t, c, clerks)
	failOverOnce(t, c, k, nodeFault{strike: (*companions.Node).Kill, mend: (*companions.Node).Start})
	k.audit(clerks)
}
