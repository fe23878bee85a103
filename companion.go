package helios

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/topology/watch"
)

// companionPort is where companions listen unless told otherwise; autoCompanion
// stands for it at each of the hosts.
const (
	companionPort = "7101"
	autoCompanion = "auto"
)

// companions returns the addresses that the companion key means, each once.
func (c *Config) companions() []string {
	var all []string
	for _, companion := range c.Companion {
		if companion == autoCompanion {
			companion = ":" + companionPort
		}
		port, beside := strings.CutPrefix(companion, ":")
		if !beside {
			all = append(all, companion)
			continue
		}
		for _, h := range c.Hosts {
			host := h.Host
			if h.isSocket() {
				host = "localhost"
			}
			all = append(all, net.JoinHostPort(host, port))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// checkCompanions refuses what is no list of companions.
func (c *Config) checkCompanions() error {
	for i, companion := range c.Companion {
		host, port, err := net.SplitHostPort(companion)
		n, _ := parsePort(port)
		if companion != autoCompanion && (err != nil || n == 0 || strings.Contains(host, ",")) {
			return keyError("companion", "%q is neither host:port, nor :port for that port of each host, nor auto", companion)
		}
		if slices.Contains(c.Companion[:i], companion) {
			return keyError("companion", "%s is named twice", companion)
		}
	}
	if c.CompanionSSLMode != "" {
		if err := oneOf("companion_sslmode", c.CompanionSSLMode, passedOnKeys["sslmode"]); err != nil {
			return err
		}
	}
	return nil
}

// companionTLS returns how to try to connect to the companion at addr, best
// first; nil is in plain text. The rules are those of the sslmode for nodes.
func (c *Config) companionTLS(addr string) ([]*tls.Config, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := parsePort(port)
	if err != nil {
		return nil, err
	}
	own := c.Clone()
	delete(own.Params, "sslnegotiation")
	if c.CompanionSSLRootCert != "" && c.CompanionSSLMode == "" {
		own.Params["sslmode"] = "verify-full"
	}
	for key, value := range map[string]string{
		"sslmode": c.CompanionSSLMode, "sslrootcert": c.CompanionSSLRootCert, "sslcert": c.CompanionSSLCert, "sslkey": c.CompanionSSLKey,
	} {
		if value != "" {
			own.Params[key] = value
		}
	}
	conf, err := own.connConfig(Host{host, number})
	if err != nil {
		return nil, fmt.Errorf("companion: %w", err)
	}
	ways := []*tls.Config{conf.TLSConfig}
	for _, f := range conf.Fallbacks {
		ways = append(ways, f.TLSConfig)
	}
	for _, way := range ways {
		if way != nil {
			way.NextProtos = nil
		} else if c.CompanionTokenFile != "" && !isLoopback(host) {
			return nil, keyError("companion_token_file", "the token would go to %s in plain text: set companion_sslmode to require or more", addr)
		}
	}
	return ways, nil
}

// parsePort reads a port, which is not 0.
func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port", text)
	}
	return uint16(n), nil
}

// isLoopback reports whether host is this machine under a name that needs no
// look-up.
func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// newListener returns what listens to the companions of the DSN; nil if it names
// none.
func (c *Cluster) newListener() (*watch.Listener, error) {
	all := c.config.companions()
	if len(all) == 0 {
		return nil, nil //nolint:nilnil // no listener is what there is then
	}
	c.companionTLS = map[string][]*tls.Config{}
	for _, addr := range all {
		ways, err := c.config.companionTLS(addr)
		if err != nil {
			return nil, fmt.Errorf("helios: %w", err)
		}
		c.companionTLS[addr] = ways
	}
	return &watch.Listener{
		Companions: all,
		Connect:    c.connectCompanion,
		Token:      c.companionToken,
		Heard:      c.announced,
		Away:       func() { c.board.Unheard() },
		Log:        c.log,
	}, nil
}

// companionToken returns what the token's file holds at this moment.
func (c *Cluster) companionToken(string) (string, error) {
	file := c.config.CompanionTokenFile
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("companion_token_file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("companion_token_file: %s does not hold one word", file)
	}
	return token, nil
}

// connectCompanion makes a connection for the listener, in the first way that
// works. Each has its part of the time.
func (c *Cluster) connectCompanion(ctx context.Context, addr string) (net.Conn, error) {
	ways := c.companionTLS[addr]
	var failures []error
	for i, way := range ways {
		limited, cancel := ctx, context.CancelFunc(func() {})
		if until, ok := ctx.Deadline(); ok {
			part := time.Until(until) / time.Duration(len(ways)-i)
			limited, cancel = context.WithTimeoutCause(ctx, part, fmt.Errorf("no answer within %v", part.Round(time.Millisecond)))
		}
		conn, err := c.dialCompanion(limited, addr, way)
		cancel()
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// dialCompanion makes a connection in one way.
func (c *Cluster) dialCompanion(ctx context.Context, addr string, way *tls.Config) (net.Conn, error) {
	dial := (&net.Dialer{}).DialContext
	if c.extras.dial != nil {
		dial = c.extras.dial
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil || way == nil {
		return conn, err
	}
	secure := tls.Client(conn, way)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close() //nolint:errcheck // it is given up
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secure, nil
}

// announced follows a bulletin: what it says of the cluster goes through the
// board, what it says of positions is a proof for those replicas whose run is
// known to be the one that our connections lead to.
func (c *Cluster) announced(b *topology.Bulletin, at time.Time) {
	view := c.board.Announce(b, at)
	routes := c.routes.Load()
	who := topology.Match(view, b)
	for i, j := range who {
		if j < 0 {
			continue
		}
		v, r := &view.Nodes[j], &b.Nodes[i]
		n := routes.byName[v.Name]
		if n == nil || v.Role != topology.RoleReplica || v.State != topology.StateUp {
			continue
		}
		n.load.SetLag(v.Lag)
		if v.OnTimeline(view.Timeline) && r.Timeline == view.Timeline && routes.view.Timeline == view.Timeline {
			n.proofs.told(at.Add(-r.Age), r.StartedAt, r.ReplayLSN)
		}
	}
	c.lookCloser(view, b, who)
	c.followMembers(view, b, who, at)
}

// A rumour is what companions said last of a node that probes say otherwise of.
type rumour struct {
	state     string
	startedAt time.Time
}

// lookCloser has nodes probed of which companions say what probes do not: that
// they are not well, or were started anew. Each such word does so once. A node
// that is to stay none of ours is told of once.
func (c *Cluster) lookCloser(view *topology.View, b *topology.Bulletin, who []int) {
	for i, j := range who {
		r := &b.Nodes[i]
		heard := rumour{r.State, r.StartedAt.UTC()}
		if before, known := c.rumours[r.Name]; known && before == heard {
			continue
		}
		c.rumours[r.Name] = heard
		switch {
		case j >= 0:
			if v := &view.Nodes[j]; !v.StartedAt.Equal(r.StartedAt) || v.State == topology.StateUp && r.State != "up" {
				c.prober.Kick(v.Name)
			}
		case r.Role != "witness" && c.config.CompanionMembers == MembersOff:
			c.warnOfStranger(r, "companion_members is off")
		}
	}
}

// warnOfStranger tells once of a node that is none of ours.
func (c *Cluster) warnOfStranger(r *topology.Reported, why string) {
	if c.strangers[r.Name] {
		return
	}
	c.strangers[r.Name] = true
	c.log.Warn("companions know a node that the DSN does not name", "node", r.Name, "address", r.Addr, "role", r.Role, "unused", why)
}

// CompanionStatus says which companion a cluster listens to, and what the
// companions say.
type CompanionStatus struct {
	Address   string    `json:"address,omitempty"` // whose stream is open; "" for nobody's
	Name      string    `json:"name,omitempty"`    // who told the newest bulletin
	Epoch     uint64    `json:"epoch"`             // the highest heard of
	Heard     bool      `json:"heard"`             // bulletins are coming in
	Hold      bool      `json:"hold"`              // they have writes wait
	HeardAt   time.Time `json:"heard_at"`          // when the newest arrived; zero if none has
	Bulletins uint64    `json:"bulletins"`         // that were heard
	Reason    string    `json:"reason,omitempty"`  // why no stream is open
}

// companionStatus describes the listener; nil if there is none.
func (c *Cluster) companionStatus(told topology.Announcement) *CompanionStatus {
	if c.listener == nil {
		return nil
	}
	st := c.listener.Status()
	s := &CompanionStatus{
		Address: st.Companion, Name: st.Name, HeardAt: st.HeardAt, Bulletins: st.Bulletins,
		Epoch: told.Epoch, Heard: told.Heard, Hold: told.Hold,
	}
	if st.Err != nil {
		s.Reason = st.Err.Error()
	}
	return s
}

// String says the same in a few words.
func (s *CompanionStatus) String() string {
	switch {
	case s.HeardAt.IsZero() && s.Reason == "":
		return "not heard yet"
	case !s.Heard:
		return "away: " + s.Reason
	}
	text := fmt.Sprintf("%s says epoch %d", s.Name, s.Epoch)
	if s.Hold {
		text += ", writes wait"
	}
	return text + fmt.Sprintf(", heard %v ago", time.Since(s.HeardAt).Round(time.Millisecond))
}
