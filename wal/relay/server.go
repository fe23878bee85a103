package relay

import (
	"context"
	"net"

	"github.com/heliosdb/helios/internal/replication"
)

// newServer returns what lets subscribers in.
func (r *Relay) newServer() *replication.Server {
	return &replication.Server{
		TLS:          r.cfg.TLS,
		Authenticate: r.authenticate,
		Verifier: func(user string) (replication.Verifier, bool) {
			v, ok := r.cfg.Users[user]
			return v, ok
		},
		Admit:      r.admit,
		Parameters: func() map[string]string { return r.branch.Load().parameters() },
	}
}

// authenticate says how a subscriber has to prove who it is.
func (r *Relay) authenticate(s replication.Startup) replication.Method {
	_, known := r.cfg.Users[s.User]
	switch certificates := r.cfg.TLS != nil && r.cfg.TLS.ClientCAs != nil; {
	case r.cfg.RequireTLS && !s.TLS:
		return replication.Reject
	case certificates && s.TLS && !known:
		return replication.Certificate
	case len(r.cfg.Users) > 0:
		return replication.Password
	case !certificates && isLocal(s.RemoteAddr):
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
