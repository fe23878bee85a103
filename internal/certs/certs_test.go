package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cluster makes an authority, the node n1 and the client ops.
func cluster(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	r := Request{Dir: dir, Now: time.Now()}
	if err := Init(r); err != nil {
		t.Fatal(err)
	}
	r.Name, r.Hosts = "n1", []string{"db1", "10.0.0.1"}
	if _, err := Node(r); err != nil {
		t.Fatal(err)
	}
	r.Name, r.Hosts = "ops", nil
	if _, err := Client(r); err != nil {
		t.Fatal(err)
	}
	return dir
}

// identity loads one.
func identity(t *testing.T, dir string) *Identity {
	t.Helper()
	i, err := Load(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// shake lets two ends greet each other, and sends a byte, since TLS 1.3's client learns
// only then that it was refused.
func shake(server, client *tls.Config) (seenByServer tls.ConnectionState, clientErr error) {
	a, b := net.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		if s.HandshakeContext(ctx) == nil {
			s.Write([]byte{1})
		}
	}()
	_, clientErr = c.Read(make([]byte, 1))
	b.Close()
	<-done
	return s.ConnectionState(), clientErr
}

// named returns c for a server of that name.
func named(c *tls.Config, name string) *tls.Config {
	c = c.Clone()
	c.ServerName = name
	return c
}

func TestWhoHasACertificateOfTheClusterIsBelieved(t *testing.T) {
	dir, other := cluster(t), cluster(t)
	n1, ops, stranger := identity(t, filepath.Join(dir, "n1")), identity(t, filepath.Join(dir, "ops")), identity(t, filepath.Join(other, "n1"))
	nobody := ops.Client()
	nobody.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	for name, tt := range map[string]struct {
		server, client *tls.Config
		want           string // what the client is told; "" for nothing
		peer           string
		node           bool
	}{
		"a node":                      {n1.Server(true), named(n1.Client(), "db1"), "", "helios", true},
		"a node by its address":       {n1.Server(true), named(n1.Client(), "10.0.0.1"), "", "helios", true},
		"an operator":                 {n1.Server(true), named(ops.Client(), "db1"), "", "ops", false},
		"nobody, where that is fine":  {n1.Server(false), named(nobody, "db1"), "", "", false},
		"nobody, where it is not":     {n1.Server(true), named(nobody, "db1"), "certificate required", "", false},
		"another name":                {n1.Server(true), named(ops.Client(), "db2"), "not db2", "", false},
		"server of another cluster":   {stranger.Server(true), named(ops.Client(), "db1"), "unknown authority", "", false},
		"client of another cluster":   {n1.Server(false), named(strangerTo(stranger, n1), "db1"), "unknown certificate authority", "", false},
		"an operator is not a server": {ops.Server(false), named(n1.Client(), "ops"), "certificate", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			seen, err := shake(tt.server, tt.client)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("the client is told %v, want %q", err, tt.want)
			}
			if tt.want != "" {
				return
			}
			if peer, node := Peer(&seen); peer != tt.peer || node != tt.node {
				t.Errorf("the server sees %q, node %v, want %q, node %v", peer, node, tt.peer, tt.node)
			}
		})
	}
}

// strangerTo returns a client with the certificate of one that believes what the other does.
func strangerTo(stranger, i *Identity) *tls.Config {
	c := i.Client()
	c.GetClientCertificate = stranger.Client().GetClientCertificate
	return c
}

func TestNothingIsOverwrittenUnlessThatIsAskedFor(t *testing.T) {
	dir := cluster(t)
	for name, do := range map[string]func(Request) error{
		"authority": Init,
		"node":      func(r Request) error { r.Name, r.Hosts = "n1", []string{"db1"}; _, err := Node(r); return err },
		"client":    func(r Request) error { r.Name = "ops"; _, err := Client(r); return err },
	} {
		t.Run(name, func(t *testing.T) {
			r := Request{Dir: dir, Now: time.Now()}
			if err := do(r); !errors.Is(err, os.ErrExist) {
				t.Errorf("made again: %v, want %v", err, os.ErrExist)
			}
			r.Force = true
			if err := do(r); err != nil {
				t.Errorf("made again by force: %v", err)
			}
		})
	}
}

func TestKeysAreTheirOwnersOnly(t *testing.T) {
	dir := cluster(t)
	for _, key := range []string{"ca.key", "n1/node.key", "ops/client.key"} {
		info, err := os.Stat(filepath.Join(dir, key))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", key, info, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "n1/node.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(dir, "n1"), nil); err == nil || !strings.Contains(err.Error(), "can be read by everybody; chmod 600 it") {
		t.Errorf("a key that everybody can read is loaded: %v", err)
	}
}

func TestWhatIsRenewedIsTakenWithoutARestart(t *testing.T) {
	dir := cluster(t)
	home := filepath.Join(dir, "n1")
	n1, ops := identity(t, home), identity(t, filepath.Join(dir, "ops"))
	serial := func() string {
		c, err := n1.Server(false).GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Certificates[0].Leaf.SerialNumber.String()
	}
	look := func() { n1.mu.Lock(); n1.checked = time.Time{}; n1.mu.Unlock() }
	before := serial()

	// A key that does not fit: the old pair stays.
	good, err := os.ReadFile(filepath.Join(home, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "node.key"), good[:50], 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	if got := serial(); got != before {
		t.Errorf("with a broken key the certificate is %s, want the one before, %s", got, before)
	}
	for _, home := range []string{dir, home} { // the authority too: what it signed stays good
		if err := Renew(Request{Dir: dir, Now: time.Now()}, home); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if got := serial(); got == before {
		t.Errorf("the certificate is %s still", got)
	}
	if _, err := shake(n1.Server(true), named(ops.Client(), "db1")); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	after, err := Show(home, time.Now())
	if err != nil || len(after) != 2 || after[1].Name != "n1" || strings.Join(after[1].Hosts, ",") != "db1,10.0.0.1" || after[1].Problem != "" {
		t.Errorf("Show = %+v, %v, want n1 at db1,10.0.0.1", after, err)
	}
}

func TestShowSaysWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, dir string)
		after time.Duration
		want  string
	}{
		"nothing":   {nil, 0, ""},
		"too early": {nil, -time.Hour, "is not good yet"},
		"expired":   {nil, 900 * 24 * time.Hour, "has expired at"},
		"another authority": {func(t *testing.T, dir string) {
			copyFile(t, filepath.Join(cluster(t), "ca.crt"), filepath.Join(dir, "ca.crt"))
		}, 0, "was not signed by the authority beside it"},
		"another key": {func(t *testing.T, dir string) {
			copyFile(t, filepath.Join(cluster(t), "n1/node.key"), filepath.Join(dir, "node.key"))
		}, 0, "private key does not match"},
		"no key":      {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "node.key")) }, 0, "no such file"},
		"an open key": {func(t *testing.T, dir string) { os.Chmod(filepath.Join(dir, "node.key"), 0o644) }, 0, "can be read by everybody"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(cluster(t), "n1")
			if tt.spoil != nil {
				tt.spoil(t, dir)
			}
			infos, err := Show(dir, time.Now().Add(tt.after))
			if err != nil || len(infos) != 2 {
				t.Fatalf("Show = %+v, %v, want two", infos, err)
			}
			if got := infos[1].Problem; tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("the problem is %q, want %q", got, tt.want)
			}
		})
	}
	if infos, err := Show(cluster(t), time.Now()); err != nil || len(infos) != 1 || infos[0].Kind != KindAuthority {
		t.Errorf("Show of the authority = %+v, %v", infos, err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeACertificateIsRefused(t *testing.T) {
	dir := cluster(t)
	for name, do := range map[string]func(Request) error{
		"a node without a host":        func(r Request) error { r.Name = "n2"; _, err := Node(r); return err },
		"a client called as nodes are": func(r Request) error { r.Name = NodeName; _, err := Client(r); return err },
		"a name that is a path":        func(r Request) error { r.Name = "../n2"; _, err := Client(r); return err },
		"no authority":                 func(r Request) error { r.Dir, r.Name = t.TempDir(), "a"; _, err := Client(r); return err },
		"nothing to renew":             func(r Request) error { return Renew(r, t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := do(Request{Dir: dir, Now: time.Now()}); err == nil {
				t.Error("it is made, want an error")
			}
		})
	}
}

// Programs of PostgreSQL before 15 look for an address among a certificate's names.
func TestAnAddressIsInTheCertificateAsANameToo(t *testing.T) {
	r := Request{Dir: t.TempDir(), Now: time.Now()}
	if err := Init(r); err != nil {
		t.Fatal(err)
	}
	r.Name, r.Hosts = "n1", []string{"db1", "10.0.0.1", "fd00::1"}
	dir, err := Node(r)
	if err != nil {
		t.Fatal(err)
	}
	_, cert, err := readLeaf(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(cert.DNSNames, " "); got != "db1 10.0.0.1 fd00::1" || len(cert.IPAddresses) != 2 {
		t.Errorf("names %s, addresses %v; want every host among the names, and two addresses", got, cert.IPAddresses)
	}
	for _, host := range r.Hosts {
		if err := cert.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
}
