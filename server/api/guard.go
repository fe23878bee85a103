package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A guard decides who may do what.
type guard struct {
	tokens      [][sha256.Size]byte // digests of those that orders need
	readTokens  [][sha256.Size]byte // of those that questions need besides
	clientCerts bool
	sameOrigin  *http.CrossOriginProtection
}

func newGuard(cfg Config) guard {
	g := guard{clientCerts: cfg.ClientCerts, sameOrigin: http.NewCrossOriginProtection()}
	if cfg.Token != "" {
		g.tokens = append(g.tokens, digest(cfg.Token))
	}
	if cfg.ReadToken != "" {
		g.readTokens = append(g.readTokens, digest(cfg.ReadToken))
	}
	return g
}

// admit returns why r may not use what is for a, or nil.
func (g guard) admit(r *http.Request, a access) error {
	switch a {
	case anybody:
		return nil
	case readers:
		if len(g.readTokens) == 0 || g.knows(r, g.readTokens) || g.knows(r, g.tokens) || g.certified(r) {
			return nil
		}
		return unauthorized(r, "questions need a token here")
	case operators:
		return g.admitOrder(r)
	}
	panic("api: a route is for nobody")
}

// admitOrder returns why r may not give an order, or nil.
func (g guard) admitOrder(r *http.Request) error {
	if err := g.sameOrigin.Check(r); err != nil {
		return &Error{Code: CodeForbidden, Message: "orders are not taken from other web pages"}
	}
	switch {
	case g.knows(r, g.tokens), g.certified(r):
		return nil
	case len(g.tokens) == 0 && !g.clientCerts:
		return admitLocal(r)
	default:
		return unauthorized(r, "orders need a token or a client certificate")
	}
}

// admitLocal lets in who is on this machine. A web page that a browser here shows is not:
// what it may send has another Content-Type, and after its name was bound to a loopback
// address, its name in Host.
func admitLocal(r *http.Request) error {
	hint := "start the companion with a token file or client certificates to take orders from elsewhere"
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	switch {
	case err != nil || !peer.Addr().Unmap().IsLoopback():
		return &Error{Code: CodeForbidden, Message: "orders are taken from this machine only", Hint: hint}
	case r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != "":
		return &Error{Code: CodeForbidden, Message: "orders are not taken through a proxy", Hint: hint}
	case !loopbackHost(r.Host):
		return &Error{Code: CodeForbidden, Message: "the Host header is not this machine", Hint: "address the companion by localhost or 127.0.0.1"}
	}
	return nil
}

// loopbackHost reports whether a Host header names this machine.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// knows reports whether r brings one of tokens.
func (g guard) knows(r *http.Request, tokens [][sha256.Size]byte) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	brought := digest(strings.TrimSpace(token))
	known := 0
	for _, t := range tokens {
		known |= subtle.ConstantTimeCompare(brought[:], t[:])
	}
	return known == 1
}

// certified reports whether r came with a certificate that the server has verified.
func (g guard) certified(r *http.Request) bool {
	return g.clientCerts && r.TLS != nil && len(r.TLS.VerifiedChains) > 0
}

func unauthorized(r *http.Request, message string) error {
	if r.Header.Get("Authorization") != "" {
		message += ", and this is not it"
	}
	return &Error{Code: CodeUnauthorized, Message: message, Hint: "Authorization: Bearer TOKEN, or the helios command with --token_file"}
}

// whoOrders names who gave an order, without a secret.
func whoOrders(r *http.Request) string {
	who := "somebody"
	switch {
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		who = r.TLS.PeerCertificates[0].Subject.CommonName
	case r.Header.Get("Authorization") != "":
		who = "token"
	}
	return who + " at " + r.RemoteAddr
}

// isJSON reports whether the body of r says that it is JSON. What a form of a web page
// can send without asking first is something else.
func isJSON(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}
