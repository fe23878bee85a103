package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kinds of certificates.
const (
	KindAuthority = "authority"
	KindNode      = "node"
	KindClient    = "client"
)

// An Info is what a certificate on disk says.
type Info struct {
	File      string    `json:"file"`
	Kind      string    `json:"kind"`
	Name      string    `json:"name"`            // of the node, operator or authority
	Hosts     []string  `json:"hosts,omitempty"` // that a node may be dialled by
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Problem   string    `json:"problem,omitempty"` // why it cannot be used
}

// Show reads the certificates in dir: the authority, and the node's or client's if there
// is one.
func Show(dir string, now time.Time) ([]Info, error) {
	name := filepath.Join(dir, AuthorityFile)
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	authorities, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	roots, infos := x509.NewCertPool(), []Info(nil)
	for _, cert := range authorities {
		roots.AddCert(cert)
		infos = append(infos, Info{
			File: name, Kind: KindAuthority, Name: cert.Subject.CommonName,
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Problem: outdated(cert, now),
		})
	}
	file, cert, err := readLeaf(dir)
	switch {
	case file == "" && hasKey(dir): // only where certificates are made
		return infos, nil
	case err != nil:
		return infos, err
	}
	return append(infos, showLeaf(dir, file, cert, roots, now)), nil
}

func hasKey(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, AuthorityKeyFile))
	return err == nil
}

// showLeaf describes the certificate of a node or client.
func showLeaf(dir, file string, cert *x509.Certificate, roots *x509.CertPool, now time.Time) Info {
	info := Info{
		File: filepath.Join(dir, file+".crt"), Kind: KindClient, Name: cert.Subject.CommonName,
		Hosts: cert.DNSNames, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
	if file == nodeFile {
		info.Kind, info.Name = KindNode, strings.Join(cert.Subject.OrganizationalUnit, " ")
	}
	for _, ip := range cert.IPAddresses {
		if !slices.Contains(info.Hosts, ip.String()) {
			info.Hosts = append(info.Hosts, ip.String())
		}
	}
	info.Problem = problem(dir, file, cert, roots, now)
	return info
}

// problem says why a certificate cannot be used; "" if it can.
func problem(dir, file string, cert *x509.Certificate, roots *x509.CertPool, now time.Time) string {
	if text := outdated(cert, now); text != "" {
		return text
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return "was not signed by the authority beside it"
	}
	if err != nil {
		return err.Error()
	}
	key := filepath.Join(dir, file+".key")
	info, err := os.Stat(key)
	switch {
	case err != nil:
		return err.Error()
	case info.Mode().Perm()&0o007 != 0:
		return key + " can be read by everybody"
	}
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, file+".crt"), key); err != nil {
		return err.Error()
	}
	return ""
}

// outdated says why a certificate is not good at now; "" if it is.
func outdated(cert *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(cert.NotBefore):
		return "is not good yet: it begins at " + cert.NotBefore.UTC().Format(time.RFC3339)
	case now.After(cert.NotAfter):
		return "has expired at " + cert.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}
