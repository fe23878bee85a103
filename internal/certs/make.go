package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/heliosdb/helios/internal/durable"
)

// Names of files in a directory of certificates.
const (
	AuthorityFile    = "ca.crt"
	AuthorityKeyFile = "ca.key" // only where certificates are made
	nodeFile         = "node"   // .crt and .key
	clientFile       = "client"
)

// NodeName is the common name of every node's certificate.
const NodeName = "helios"

// How long certificates are good for unless told.
const (
	AuthorityDays = 3650
	LeafDays      = 825 // the most that common TLS implementations accept
)

// backdated is by how much a certificate begins before it is made: clocks of two
// machines differ.
const backdated = 5 * time.Minute

// A Request says what is to be made.
type Request struct {
	Dir   string   // of the authority
	Out   string   // where the files go; "" for a directory in Dir named Name
	Name  string   // of the node or operator
	Hosts []string // names and addresses of the node
	Days  int      // 0 for the usual
	Force bool     // overwrite
	Now   time.Time
}

// leafName is what may be called so: it names a directory.
var leafName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// Init makes an authority in r.Dir.
func Init(r Request) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := r.template(pkix.Name{CommonName: "helios cluster authority"}, AuthorityDays)
	if err != nil {
		return err
	}
	asAuthority(cert)
	signed, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return err
	}
	return write(r.Dir, pair{AuthorityFile, AuthorityKeyFile, signed, key}, r.Force)
}

// asAuthority makes a template that of an authority which signs no other authorities.
func asAuthority(cert *x509.Certificate) {
	cert.IsCA, cert.BasicConstraintsValid, cert.MaxPathLenZero = true, true, true
	cert.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

// Node makes the certificate of a node, for both ends of a connection.
func Node(r Request) (dir string, err error) {
	if len(r.Hosts) == 0 {
		return "", errors.New("a node needs the names and addresses by which others reach it")
	}
	return r.leaf(nodeFile, pkix.Name{CommonName: NodeName, OrganizationalUnit: []string{r.Name}},
		[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth})
}

// Client makes the certificate of an operator or a program.
func Client(r Request) (dir string, err error) {
	if r.Name == NodeName {
		return "", fmt.Errorf("%s is the name of nodes; a client needs another", NodeName)
	}
	return r.leaf(clientFile, pkix.Name{CommonName: r.Name}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
}

// leaf makes one certificate that signs no others, and returns where it is.
func (r Request) leaf(file string, subject pkix.Name, uses []x509.ExtKeyUsage) (string, error) {
	if !leafName.MatchString(r.Name) {
		return "", fmt.Errorf("%q cannot be a name; use letters, digits, dots, dashes and underscores", r.Name)
	}
	cert, err := r.template(subject, LeafDays)
	if err != nil {
		return "", err
	}
	cert.KeyUsage, cert.ExtKeyUsage = x509.KeyUsageDigitalSignature, uses
	// An address is written as a name too: libpq before 15 looks for it among the names
	// only (fe-secure-common.c), and pg_basebackup of 13 and 14 is such a client.
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		}
		cert.DNSNames = append(cert.DNSNames, host)
	}
	out := r.Out
	if out == "" {
		out = filepath.Join(r.Dir, r.Name)
	}
	return out, r.sign(cert, out, file)
}

// sign has the authority sign cert for a new key, and writes both to out.
func (r Request) sign(cert *x509.Certificate, out, file string) error {
	authority, err := readAuthority(r.Dir)
	if err != nil {
		return err
	}
	if left := authority.cert.NotAfter; cert.NotAfter.After(left) {
		cert.NotAfter = left
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	signed, err := x509.CreateCertificate(rand.Reader, cert, authority.cert, &key.PublicKey, authority.key)
	if err != nil {
		return err
	}
	if err := write(out, pair{file + ".crt", file + ".key", signed, key}, r.Force); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(out, AuthorityFile), authority.pem, 0o644)
}

// template returns what all certificates have.
func (r Request) template(subject pkix.Name, usual int) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	days := r.Days
	if days == 0 {
		days = usual
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: r.Now.Add(-backdated), NotAfter: r.Now.Add(time.Duration(days) * 24 * time.Hour),
	}, nil
}

// Renew signs the certificate in dir again, with the same names, for a new key and from
// now on. If dir is the authority's own, the authority is signed again, with its key: what
// it has signed before stays good.
func Renew(r Request, dir string) error {
	if filepath.Clean(dir) == filepath.Clean(r.Dir) {
		return r.renewAuthority()
	}
	file, old, err := readLeaf(dir)
	if err != nil {
		return err
	}
	days := int(old.NotAfter.Sub(old.NotBefore).Hours() / 24)
	cert, err := r.template(old.Subject, days)
	if err != nil {
		return err
	}
	cert.KeyUsage, cert.ExtKeyUsage = old.KeyUsage, old.ExtKeyUsage
	cert.DNSNames, cert.IPAddresses = old.DNSNames, old.IPAddresses
	r.Force = true
	return r.sign(cert, dir, file)
}

// renewAuthority signs the authority with its own key again.
func (r Request) renewAuthority() error {
	authority, err := readAuthority(r.Dir)
	if err != nil {
		return err
	}
	cert, err := r.template(authority.cert.Subject, AuthorityDays)
	if err != nil {
		return err
	}
	asAuthority(cert)
	signed, err := x509.CreateCertificate(rand.Reader, cert, cert, authority.key.Public(), authority.key)
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(r.Dir, AuthorityFile), encode("CERTIFICATE", signed), 0o644)
}

// authority is what signs.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte // of cert
}

// readAuthority reads what Init has written.
func readAuthority(dir string) (*authority, error) {
	content, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil {
		return nil, err
	}
	certs, err := parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, AuthorityFile), err)
	}
	name := filepath.Join(dir, AuthorityKeyFile)
	secret, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(secret)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", name, AuthorityFile)
	}
	return &authority{cert: certs[0], key: key, pem: content}, nil
}

// pair is a certificate and its key, and what their files are called.
type pair struct {
	certFile, keyFile string
	cert              []byte
	key               *ecdsa.PrivateKey
}

// write puts a pair into dir, the key first: whoever finds the new certificate finds
// its key.
func write(dir string, p pair, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, file := range []string{p.certFile, p.keyFile} {
		if _, err := os.Lstat(filepath.Join(dir, file)); err == nil && !force {
			return fmt.Errorf("%s: %w", filepath.Join(dir, file), os.ErrExist)
		}
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, p.keyFile), encode("PRIVATE KEY", key), 0o600); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, p.certFile), encode("CERTIFICATE", p.cert), 0o644)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parse reads certificates, at least one.
func parse(content []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return certs, nil
}

// readLeaf reads the certificate of a node or a client in dir.
func readLeaf(dir string) (file string, cert *x509.Certificate, err error) {
	file, err = leafIn(dir)
	if err != nil {
		return "", nil, err
	}
	content, err := os.ReadFile(filepath.Join(dir, file+".crt"))
	if err != nil {
		return "", nil, err
	}
	certs, err := parse(content)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", filepath.Join(dir, file+".crt"), err)
	}
	return file, certs[0], nil
}

// leafIn tells whether dir has the certificate of a node or of a client.
func leafIn(dir string) (file string, err error) {
	files := []string{nodeFile, clientFile}
	at := slices.IndexFunc(files, func(file string) bool {
		_, err := os.Stat(filepath.Join(dir, file+".crt"))
		return err == nil
	})
	if at < 0 {
		return "", fmt.Errorf("%s: neither %s.crt nor %s.crt is there", dir, nodeFile, clientFile)
	}
	return files[at], nil
}
