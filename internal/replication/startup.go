package replication

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// What clients may send in place of a startup message (pqcomm.h).
const (
	cancelRequest = 80877102
	tlsRequest    = 80877103
	gssRequest    = 80877104
)

const (
	startupHeader = 8
	// maxStartup is the most that PostgreSQL reads as a startup message.
	maxStartup = 10000
	// helloByte begins a TLS handshake that nobody has asked for before.
	helloByte = 0x16
	// alpn is the protocol's name in TLS.
	alpn = "postgresql"
)

// negotiate answers requests for encryption, and returns the startup message.
func (l *login) negotiate() ([]byte, error) {
	asked := map[uint32]bool{}
	for {
		header := make([]byte, startupHeader)
		if _, err := io.ReadFull(l.conn, header[:1]); err != nil {
			return nil, err
		}
		if header[0] == helloByte && l.state == nil && l.server.TLS != nil && len(asked) == 0 {
			if err := l.encryptAtOnce(header[0]); err != nil {
				return nil, err
			}
			continue
		}
		if _, err := io.ReadFull(l.conn, header[1:]); err != nil {
			return nil, err
		}
		// What the packet is for stands where a startup message has its version.
		length, code := int(int32(binary.BigEndian.Uint32(header))), binary.BigEndian.Uint32(header[4:])
		switch {
		case code == cancelRequest:
			return nil, ErrCancel
		case (code == tlsRequest || code == gssRequest) && length == startupHeader && !asked[code] && l.state == nil:
			asked[code] = true
			if err := l.answerRequest(code); err != nil {
				return nil, err
			}
			continue
		case length < startupHeader || length > maxStartup:
			return nil, protocolError("invalid length of startup packet")
		}
		l.version = code
		body := make([]byte, length-4)
		copy(body, header[4:])
		_, err := io.ReadFull(l.conn, body[4:])
		return body, err
	}
}

// answerRequest says whether there is such encryption, and begins it. Nothing has
// been read ahead: what a man in the middle may have put behind the request in
// plain text is taken for a part of the handshake, which fails.
func (l *login) answerRequest(code uint32) error {
	if code != tlsRequest || l.server.TLS == nil {
		_, err := l.conn.Write([]byte{'N'})
		return err
	}
	if _, err := l.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return l.encrypt(l.conn)
}

// encryptAtOnce is for clients that begin with TLS (sslnegotiation=direct). They
// have to name the protocol, so that nobody else's TLS can be redirected here.
func (l *login) encryptAtOnce(first byte) error {
	if err := l.encrypt(&unread{Conn: l.conn, first: []byte{first}}); err != nil {
		return err
	}
	if l.state.NegotiatedProtocol != alpn {
		return protocolError("received direct SSL connection request without ALPN protocol negotiation extension")
	}
	return nil
}

// unread is a connection whose first bytes were read already.
type unread struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (u *unread) Read(p []byte) (int, error) {
	if len(u.first) == 0 {
		return u.Conn.Read(p)
	}
	n := copy(p, u.first)
	u.first = u.first[n:]
	return n, nil
}

// encrypt does the server's part of a TLS handshake.
func (l *login) encrypt(conn net.Conn) error {
	var leaf []byte
	encrypted := tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return l.server.tlsConfig(hello, &leaf)
		},
	})
	if err := encrypted.Handshake(); err != nil { //nolint:noctx // the connection has a deadline, which follows the context
		return fmt.Errorf("replication: TLS: %w", err)
	}
	state := encrypted.ConnectionState()
	l.conn, l.state, l.binding = encrypted, &state, certificateHash(leaf)
	return nil
}

// tlsConfig returns how the connection of one client is encrypted, and has leaf
// become the certificate that it is shown. There are no session tickets, as in
// PostgreSQL: a resumed session shows none.
func (s *Server) tlsConfig(hello *tls.ClientHelloInfo, leaf *[]byte) (*tls.Config, error) {
	base := s.TLS
	if base.GetConfigForClient != nil {
		other, err := base.GetConfigForClient(hello)
		if err != nil {
			return nil, err
		}
		if other != nil {
			base = other
		}
	}
	cfg := base.Clone()
	cfg.GetConfigForClient = nil
	cfg.SessionTicketsDisabled = true
	cfg.DynamicRecordSizingDisabled = true // a stream is not read by a browser
	cfg.NextProtos = []string{alpn}
	cfg.Certificates = nil
	cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		certificate, err := chooseCertificate(base, hello)
		if err == nil && len(certificate.Certificate) > 0 {
			*leaf = certificate.Certificate[0]
		}
		return certificate, err
	}
	return cfg, nil
}

// chooseCertificate does what crypto/tls does: it does not tell which certificate
// it has shown.
func chooseCertificate(cfg *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cfg.GetCertificate != nil && (len(cfg.Certificates) == 0 || hello.ServerName != "") {
		if certificate, err := cfg.GetCertificate(hello); certificate != nil || err != nil {
			return certificate, err
		}
	}
	for i := range cfg.Certificates {
		if hello.SupportsCertificate(&cfg.Certificates[i]) == nil {
			return &cfg.Certificates[i], nil
		}
	}
	if len(cfg.Certificates) == 0 {
		return nil, fmt.Errorf("replication: no certificate to show")
	}
	return &cfg.Certificates[0], nil
}

// certificateHash returns the hash that binds authentication to the certificate
// (RFC 5929, tls-server-end-point); nil for a certificate that has none.
func certificateHash(der []byte) []byte {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	var h hash.Hash
	switch name := certificate.SignatureAlgorithm.String(); {
	case strings.Contains(name, "MD5"), strings.Contains(name, "SHA1"), strings.Contains(name, "SHA256"):
		h = sha256.New()
	case strings.Contains(name, "SHA384"):
		h = sha512.New384()
	case strings.Contains(name, "SHA512"):
		h = sha512.New()
	default:
		return nil
	}
	h.Write(der)
	return h.Sum(nil)
}

// newestMinor is the newest minor version of the protocol that is spoken here,
// PostgreSQL 18's.
const newestMinor = 2

// readStartup takes the startup message, which begins with the version.
func (l *login) readStartup(body []byte) error {
	major, minor := l.version>>16, l.version&0xFFFF
	if major != 3 {
		return &Error{
			Code:    codeNotSupported,
			Message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.%d", major, minor, newestMinor),
		}
	}
	parameters, err := startupParameters(body[4:])
	if err != nil {
		return err
	}
	l.startup = Startup{
		User:              parameters["user"],
		ApplicationName:   parameters["application_name"],
		RemoteAddr:        l.conn.RemoteAddr().String(),
		TLS:               l.state != nil,
		StartupParameters: parameters,
	}
	if l.state != nil && len(l.state.VerifiedChains) > 0 {
		l.startup.Certificate = l.state.PeerCertificates[0].Subject.CommonName
	}
	if err := l.negotiateVersion(minor); err != nil {
		return err
	}
	return l.checkStartup()
}

// startupParameters reads names and values, each with a zero byte behind it, and
// one more at the end.
func startupParameters(body []byte) (map[string]string, error) {
	malformed := protocolError("invalid startup packet layout: expected terminator as last byte")
	parameters := map[string]string{}
	for {
		name, rest, ok := bytes.Cut(body, []byte{0})
		if !ok {
			return nil, malformed
		}
		if len(name) == 0 {
			if len(rest) > 0 {
				return nil, malformed
			}
			return parameters, nil
		}
		value, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return nil, malformed
		}
		parameters[string(name)] = string(value)
		body = rest
	}
}

// negotiateVersion tells a client that wants more than there is.
func (l *login) negotiateVersion(minor uint32) error {
	var options []string
	for name := range l.startup.StartupParameters {
		if strings.HasPrefix(name, "_pq_.") {
			options = append(options, name)
		}
	}
	if minor <= newestMinor && len(options) == 0 {
		return nil
	}
	slices.Sort(options)
	l.version = pgproto3.ProtocolVersion30 | min(minor, newestMinor)
	message, err := (&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: l.version, UnrecognizedOptions: options}).Encode(nil)
	if err == nil {
		_, err = l.conn.Write(message)
	}
	return err
}

// checkStartup refuses who does not come for physical replication.
func (l *login) checkStartup() error {
	if l.startup.User == "" {
		return &Error{Code: codeNoAuthorization, Message: "no PostgreSQL user name specified in startup packet"}
	}
	switch strings.ToLower(l.startup.StartupParameters["replication"]) {
	case "true", "on", "yes", "1", "t", "y":
		return nil
	}
	return &Error{
		Code:    codeNotSupported,
		Message: "only connections for physical replication are accepted",
		Hint:    "This is a relay of write-ahead log. Connect to PostgreSQL itself for queries and for logical replication.",
	}
}
