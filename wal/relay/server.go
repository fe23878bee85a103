package relay

import (
	"context"
	"errors"
	"net"

	"github.com/heliosdb/helios/internal/replication"
)

// newServer returns what lets subscribers in.
func (r *Relay) newServer() *replication.Server {
	return &replication.Server{
		TLS:          r.cfg.TLS,
		Authenticate: r.authenticate,
		Verifier: func(user string) (replication.Verifier, bool) {
			v, ok := (*r.users.Load())[user]
			return v, ok
		},
		Admit:      r.admit,
		Parameters: func() map[string]string { return r.branch.Load().parameters() },
	}
}

// SetUsers changes who may subscribe. Who has come in stays. Where anybody was let
// in there have to be some users from the beginning.
func (r *Relay) SetUsers(users map[string]replication.Verifier) error {
	if len(users) == 0 && len(*r.users.Load()) > 0 {
		return errors.New("relay: no users: without any the relay would trust everybody on this machine")
	}
	r.users.Store(&users)
	return nil
}

// authenticate says how a subscriber has to prove who it is.
func (r *Relay) authenticate(s replication.Startup) replication.Method {
	users := *r.users.Load()
	_, known := users[s.User]
	switch certificates := r.cfg.TLS != nil && r.cfg.TLS.ClientCAs != nil; {
	case r.cfg.RequireTLS && !s.TLS:
		return replication.Reject
	case certificates && s.TLS && !known:
		return replication.Certificate
	case len(users) > 0:
		return replication.Password
	case !certificates && (r.cfg.TrustAll || isLocal(s.RemoteAddr)):
		return replication.Trust
	default:
		return replication.Reject
	}
}

// isLocal reports whether a peer is on this machine. One without an address has
// come by a Unix socket.
func isLocal(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr == "" || addr[0] == '/' || addr[0] == '@'
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// admit turns a subscriber away that could not be served: before its session
// begins, since that is when libpq goes on to the next host of primary_conninfo.
func (r *Relay) admit(ctx context.Context, _ replication.Startup) error {
	r.mu.Lock()
	orphaned, closed := r.orphaned, r.closed
	r.mu.Unlock()
	switch {
	case closed:
		return errShutdown
	case orphaned:
		return errOrphaned
	}
	if _, err := r.knownBranch(ctx, headWait); err != nil {
		return &replication.Error{Code: "57P03", Message: "the relay is starting up", Detail: "It has " + err.Error() + "."}
	}
	return nil
}
