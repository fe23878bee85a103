package integration_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// certificates makes an authority, and the certificate of a client of it. The
// server's user can read all of them.
func certificates(t testing.TB) (dir string, ops *certs.Identity) {
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
func certify(dir string, n *companions.Node) error {
	hosts := []string{"127.0.0.1"}
	for _, addr := range []string{n.Companion, n.Advertise, n.Postgres} {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			hosts = append(hosts, host)
		}
	}
	made, err := certs.Node(certs.Request{Dir: dir, Name: n.Name, Hosts: hosts, Now: time.Now()})
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

// overTLS gives all companions of a cluster certificates: calls, the consensus, WAL
// and clones are TLS with certificates on both sides then.
func overTLS(t testing.TB, o companions.Options) companions.Options {
	t.Helper()
	dir, ops := certificates(t)
	o.TLS = ops.Client()
	o.Keys += "&companion_sslmode=verify-full&companion_sslrootcert=" + filepath.Join(dir, "ca.crt")
	o.Flags = slices.DeleteFunc(slices.Clone(o.Flags), func(flag string) bool { return flag == "--insecure" })
	place := o.Place
	o.Place = func(n *companions.Node) error {
		if place != nil {
			if err := place(n); err != nil {
				return err
			}
		}
		return certify(dir, n)
	}
	return o
}

// Another node takes over where everything is TLS, and the old one comes back.
func TestCompanionsSpeakTLS(t *testing.T) {
	c := startCompanions(t, overTLS(t, companions.Options{Nodes: 3}))
	k := employ(t, c, clerks)
	failOverOnce(t, c, k, nodeFault{strike: (*companions.Node).Kill, mend: (*companions.Node).Start})
	k.audit(clerks)
}
