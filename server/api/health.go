package api

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/topology"
)

// bulletinTrust is for how long a bulletin says something about lag. A companion that is
// cut off keeps the last one, and with it a lag that does not grow.
const bulletinTrust = 10 * time.Second

// probes are the routes of load balancers.
func probes() []route {
	probe := func(path string, why func(s sight, q allowance) string) route {
		return route{method: http.MethodGet, path: path, access: anybody, probe: true, serve: func(h *Handler, w http.ResponseWriter, r *http.Request) error {
			q, err := allowanceOf(r.URL.Query().Get("lag"))
			if err != nil {
				return err
			}
			if q == (allowance{}) {
				q = allowance{lag: h.cfg.LagThreshold, unasked: true}
			}
			s := h.look(time.Now())
			health := s.health()
			health.Reason = why(s, q)
			health.OK = health.Reason == ""
			status := http.StatusOK
			if !health.OK {
				status = http.StatusServiceUnavailable
			}
			answer(w, r, status, health)
			return nil
		}}
	}
	return []route{
		probe("/primary", func(s sight, _ allowance) string { return s.notPrimary() }),
		probe("/replica", sight.notReplica),
		probe("/read-only", sight.notReadable),
		probe("/health", func(s sight, _ allowance) string { return s.notHealthy() }),
		probe("/ready", func(s sight, _ allowance) string { return s.notReady() }),
		probe("/liveness", func(sight, allowance) string { return "" }),
	}
}

// An allowance is how far behind a replica may be; the zero value allows anything.
type allowance struct {
	lag     time.Duration
	behind  uint64 // bytes
	unasked bool   // nobody asked for it: then a lag that is not known is no reason to turn reads away
}

// allowanceOf reads a duration, or a number of bytes with or without a unit.
func allowanceOf(text string) (allowance, error) {
	if text == "" {
		return allowance{}, nil
	}
	if n, ok := parseBytes(text); ok {
		return allowance{behind: n}, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return allowance{}, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("lag: %q is neither a size nor a duration", text), Hint: "write 10MB or 2s"}
	}
	return allowance{lag: d}, nil
}

// parseBytes reads a positive number of bytes as PostgreSQL writes it: 64kB, 16MB, 1GB.
func parseBytes(text string) (uint64, bool) {
	digits := strings.TrimRight(text, "BKMGTbkmgt")
	shift, ok := map[string]uint{"": 0, "B": 0, "KB": 10, "MB": 20, "GB": 30, "TB": 40}[strings.ToUpper(text[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || n == 0 || n > math.MaxInt64>>shift {
		return 0, false
	}
	return n << shift, true
}

// A sight is what a companion knows of its node at one moment.
type sight struct {
	state    *failover.State
	local    failover.Report
	lease    time.Duration
	leader   string
	reported topology.Reported // of the newest bulletin; Lag is -1 if it is not known
}

// look returns what there is to see of this node.
func (h *Handler) look(now time.Time) sight {
	c := h.cfg.Cluster
	s := sight{state: c.State(), local: c.Local(), lease: c.LeaseRemaining(), reported: topology.Reported{Lag: -1}}
	s.leader, _ = c.Leader()
	b, _ := c.Bulletin()
	if b == nil || h.lines.age(b, now) > bulletinTrust {
		return s
	}
	for _, node := range b.Nodes {
		if node.Name == s.local.Node {
			s.reported = node
		}
	}
	return s
}

// role is the node's, by what its PostgreSQL says.
func (s sight) role() string {
	switch {
	case s.local.Postgres == failover.ServerNone:
		return "witness"
	case s.local.Postgres != failover.ServerUp:
		return "unknown"
	case s.local.Primary:
		return "primary"
	default:
		return "replica"
	}
}

// health returns what is told with any answer.
func (s sight) health() Health {
	h := Health{
		Node: s.local.Node, Role: s.role(), Postgres: s.local.Postgres, Epoch: s.state.Epoch,
		Timeline: s.local.Timeline, LeaseMS: milliseconds(max(0, s.lease)),
	}
	if h.Role == "replica" {
		h.ReplayLSN = s.local.ReplayLSN
		if s.reported.Lag >= 0 {
			h.LagMS, h.Behind = new(milliseconds(s.reported.Lag)), new(s.reported.Behind)
		}
	}
	return h
}

// isNot says that the node is not what was asked for.
func (s sight) isNot(role string) string {
	if got := s.role(); got != "unknown" {
		return fmt.Sprintf("it is a %s and not a %s", got, role)
	}
	if s.local.Reason != "" {
		return fmt.Sprintf("PostgreSQL is %s: %s", s.local.Postgres, s.local.Reason)
	}
	return fmt.Sprintf("PostgreSQL is %s", s.local.Postgres)
}

// notPrimary returns why the node should get no writes; "" if it should.
func (s sight) notPrimary() string {
	switch {
	case s.role() != "primary":
		return s.isNot("primary")
	case s.state.Primary != s.local.Node:
		return fmt.Sprintf("the primary of epoch %d is %s", s.state.Epoch, s.state.Primary)
	case s.state.Phase != failover.PhaseReady:
		return fmt.Sprintf("epoch %d is %s", s.state.Epoch, phaseOf(s.state))
	case s.lease <= 0:
		return "it has no lease: commits wait"
	default:
		return ""
	}
}

// notReplica returns why the node should get no reads of replicas; "" if it should.
func (s sight) notReplica(q allowance) string {
	m, _ := s.state.Member(s.local.Node)
	switch {
	case s.role() != "replica":
		return s.isNot("replica")
	case m.Maintenance:
		return "it is in maintenance"
	case q.lag == 0 && q.behind == 0, q.unasked && s.reported.Lag < 0:
		return ""
	case s.reported.Lag < 0:
		return "its lag is not known"
	case q.lag > 0 && s.reported.Lag > q.lag:
		return fmt.Sprintf("it lags by %v", s.reported.Lag.Round(time.Millisecond))
	case q.behind > 0 && s.reported.Behind > q.behind:
		return fmt.Sprintf("it is %d bytes behind", s.reported.Behind)
	default:
		return ""
	}
}

// notReadable returns why the node should get no reads at all; "" if it should.
func (s sight) notReadable(q allowance) string {
	if s.role() == "primary" {
		return s.notPrimary()
	}
	return s.notReplica(q)
}

// notHealthy returns why the node does not do what it is there for; "" if it does.
func (s sight) notHealthy() string {
	if role := s.role(); role == "unknown" {
		return s.isNot(role)
	}
	return ""
}

// notReady returns why the node takes no part in the cluster; "" if it does.
func (s sight) notReady() string {
	switch role := s.role(); {
	case s.leader == "":
		return "nobody leads the cluster"
	case role == "primary":
		return s.notPrimary()
	case role == "replica" && !s.local.Streaming:
		return "it receives no WAL"
	default:
		return s.notHealthy()
	}
}
