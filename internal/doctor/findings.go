package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
)

// Findings returns what is wrong, the gravest first.
func (p *Picture) Findings() []Finding {
	var all []Finding
	for _, check := range []func(*Picture) []Finding{
		unreachable, quorum, primaries, voters, members, replication, waiting,
		credentials, servers, here, slots, clocks, disks, certificates, orders,
	} {
		all = append(all, check(p)...)
	}
	for i := range all {
		all[i].What = p.discreet(onOneLine.Replace(all[i].What)) // errors of pgx have several
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	return all
}

var onOneLine = strings.NewReplacer("\n\t", " ", "\n", "; ")

// discreet takes secrets out of what others have said.
func (p *Picture) discreet(text string) string {
	for _, secret := range p.secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return text
}

func rank(s Severity) int { return slices.Index([]Severity{Problem, Note}, s) }

// unreachable is about companions that do not answer.
func unreachable(p *Picture) []Finding {
	if p.Overview == nil && p.Err != nil && !refusedLogin(p.Err) {
		return []Finding{{
			Code: "no_companion", Severity: Problem,
			What: "no companion answers at " + saidOnce(p.Err, strings.Join(p.Addrs, ", ")),
			Why:  "without them nobody fails over, and a primary without its companion acknowledges no commits",
			Fix:  "start helios server, or say where it is with --companion; --tls if it speaks TLS",
		}}
	}
	var found []Finding
	for _, c := range p.Companions {
		if c.Err != nil && !refusedLogin(c.Err) {
			found = append(found, Finding{
				Code: "unreachable_companion", Severity: Problem, Node: c.Member.Name,
				What: "its companion does not answer at " + saidOnce(c.Err, c.Member.Companion),
				Why:  "it does not vote, and its node is not promoted; if it is only from here that it cannot be reached, orders may not be either",
				Fix:  "on " + c.Member.Name + ": systemctl status helios; a firewall has to let " + c.Member.Companion + " through between all nodes",
			})
		}
	}
	return found
}

// saidOnce tells who did not answer, and why, and neither twice.
func saidOnce(err error, addr string) string {
	text := strings.TrimPrefix(err.Error(), client.ErrAway.Error()+": ")
	if first, _, _ := strings.Cut(addr, ", "); strings.HasPrefix(text, first+": ") {
		return text
	}
	return addr + ": " + text
}

// quorum is about whether anybody can decide.
func quorum(p *Picture) []Finding {
	if p.Overview == nil || p.Overview.Leader.Name != "" {
		return nil
	}
	if len(p.Overview.Members) == 0 {
		return []Finding{{
			Code: "no_quorum", Severity: Problem, Node: p.Overview.Companion,
			What: "its companion was just started, and hears from no other what the cluster is",
			Why:  "it remembers the cluster, but does not act on that before more than half of those that vote agree",
			Fix:  "start the other companions, in any order; if it is to be a new node, look at its --join",
		}}
	}
	if p.Overview.IsStranger() {
		return []Finding{{
			Code: "no_member", Severity: Problem, Node: p.Overview.Companion,
			What: "its companion answers, and is no member of the cluster: what it tells is old",
			Why:  "it was taken out, so that it neither votes nor hears of what happens",
			Fix:  "ask another with --companion; on " + p.Overview.Companion + " stop helios server, and then PostgreSQL",
		}}
	}
	var voting, silent []string
	for _, c := range p.Companions {
		if c.Member.NonVoter {
			continue
		}
		voting = append(voting, c.Member.Name)
		if c.Err != nil {
			silent = append(silent, c.Member.Name)
		}
	}
	f := Finding{
		Code: "no_quorum", Severity: Problem,
		What: fmt.Sprintf("no companion leads: %d of %d votes are needed", len(voting)/2+1, len(voting)),
		Why:  "nobody may elect a primary, and the one there is cannot renew its lease: commits wait",
		Fix:  "start the companions of " + strings.Join(silent, ", "),
	}
	if 2*len(silent) > len(voting) {
		f.Fix += "; if they are gone for good, helios help failover says how a survivor goes on without them"
	}
	if len(silent) == 0 {
		f.Fix = "they all answer from here, so look whether they reach each other: " + addresses(p)
	}
	return []Finding{f}
}

func addresses(p *Picture) string {
	var all []string
	for _, c := range p.Companions {
		all = append(all, c.Member.Companion)
	}
	return strings.Join(all, ", ")
}

// primaries is about two of them, or none.
func primaries(p *Picture) []Finding {
	claims := map[string]bool{}
	for _, c := range p.Companions {
		if c.Sight != nil && c.Sight.Role == "primary" {
			claims[c.Member.Name] = true
		}
	}
	for i := range p.Servers {
		if s := &p.Servers[i]; s.Err == nil && !s.InRecovery {
			claims[s.Node] = true
		}
	}
	if len(claims) < 2 {
		return nil
	}
	var names []string
	for name := range claims {
		names = append(names, name)
	}
	slices.Sort(names)
	f := Finding{
		Code: "two_primaries", Severity: Problem,
		What: strings.Join(names, " and ") + " are both primaries",
		Why:  "what is written to the wrong one is lost; its companion acknowledges no commits if it runs, but reads there are of another history",
		Fix:  "stop all but the one that helios status calls the primary",
	}
	if p.Overview != nil && claims[p.Overview.Primary] {
		wrong := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == p.Overview.Primary })
		f.Node = strings.Join(wrong, ", ")
		f.Fix = "start helios server on " + f.Node + ": it stops PostgreSQL there, and makes it a replica again or says why it leaves the data alone"
	}
	return []Finding{f}
}

// voters is about how many votes there are.
func voters(p *Picture) []Finding {
	if p.Overview == nil {
		return nil
	}
	n, witness := 0, ""
	for _, m := range p.Overview.Members {
		if m.NonVoter {
			continue
		}
		n++
		if m.Witness {
			witness = m.Name
		}
	}
	switch {
	case n == 0 || n%2 == 1 && n > 1:
		return nil
	case n == 1:
		return []Finding{{
			Code: "one_voter", Severity: Problem,
			What: "one companion votes",
			Why:  "when its machine is gone nobody is left to decide",
			Fix:  "add two nodes, or one and a witness: helios replicas add NAME",
		}}
	}
	f := Finding{
		Code: "even_voters", Severity: Problem,
		What: fmt.Sprintf("%d companions vote, an even number", n),
		Why:  fmt.Sprintf("%d may fail, no more than with %d; and if the network splits in halves neither may decide", (n-1)/2, n-1),
		Fix:  "add a witness, on a machine of its own: helios replicas add --witness NAME",
	}
	if witness != "" && n > 2 {
		f.Fix = "take a witness out: helios replicas remove " + witness + "; or add another voter"
	}
	return []Finding{f}
}

// members is about those that the leader does not hear of, and those that are not well.
func members(p *Picture) []Finding {
	if p.Overview == nil || p.Overview.Bulletin == nil {
		return nil
	}
	var found []Finding
	for _, m := range p.Overview.Members {
		at := slices.IndexFunc(p.Overview.Bulletin.Nodes, nodeNamed(m.Name))
		switch {
		case p.away(m.Name): // that is told already
		case at < 0 || p.Overview.Bulletin.Nodes[at].State == stateUnknown:
			found = append(found, Finding{
				Code: "never_heard", Severity: Problem, Node: m.Name,
				What: "the leader has not heard of it",
				Why:  "it counts for the quorum, and cannot take over",
				Fix:  "start its companion, or take it out: helios replicas remove " + m.Name,
			})
		case !m.Witness:
			found = append(found, unwell(m, p.Overview, at)...)
		}
	}
	return found
}

// stateUnknown is the state of a node that the leader does not hear of.
const stateUnknown = "unknown"

// away reports whether a member's companion does not answer.
func (p *Picture) away(name string) bool {
	return slices.ContainsFunc(p.Companions, func(c Companion) bool { return c.Member.Name == name && c.Err != nil })
}

// unwell is about a PostgreSQL that does not run as it should.
func unwell(m failover.Member, o *api.Overview, at int) []Finding {
	n := o.Bulletin.Nodes[at]
	because := ""
	if n.Reason != "" {
		because = ": " + n.Reason
	}
	if astray(o.Bulletin, n) {
		return []Finding{{
			Code: "astray", Severity: Problem, Node: m.Name,
			What: fmt.Sprintf("its data is on timeline %s, and the cluster is only on %s: somebody has promoted it", n.Timeline, o.Bulletin.Timeline),
			Why:  "the cluster knows nothing of what was written there, so that the data is left alone, and nobody reads it",
			Fix:  "helios reinit " + m.Name + " has it cloned anew, and keeps the data that it has now beside the data directory; see whether something there is wanted",
		}}
	}
	switch n.State {
	case "up", "starting", "maintenance":
		return nil
	case "diverged":
		return []Finding{{
			Code: "diverged", Severity: Problem, Node: m.Name,
			What: "its data is of another history than the primary's" + because,
			Why:  "nobody reads from it, and it cannot be promoted, until it was rewound or cloned",
			Fix:  "it is rewound by itself if it can be; else helios reinit " + m.Name,
		}}
	}
	return []Finding{{
		Code: "postgres_" + n.State, Severity: Problem, Node: m.Name,
		What: "its PostgreSQL is " + n.State + because,
		Why:  "it serves nobody, and cannot take over",
		Fix:  "on " + m.Name + ": journalctl -u helios, and PostgreSQL's own log, say why",
	}}
}

// astray reports whether a node was promoted past the companions.
func astray(b *topology.Bulletin, n topology.Reported) bool {
	return b.Phase == string(failover.PhaseReady) && n.Name != b.Primary && n.Timeline > b.Timeline
}

// replication is about replicas that receive nothing, or that are late.
func replication(p *Picture) []Finding {
	if p.Overview == nil || p.Overview.Bulletin == nil || p.Overview.Bulletin.Primary == "" {
		return nil
	}
	var found []Finding
	for i := range p.Overview.Bulletin.Nodes {
		n := &p.Overview.Bulletin.Nodes[i]
		if n.Role != "replica" || n.State != "up" || n.Streaming {
			continue
		}
		what := "it does not receive WAL"
		if n.Reason != "" {
			what += ": " + n.Reason
		}
		found = append(found, Finding{
			Code: "not_streaming", Severity: Problem, Node: n.Name, What: what,
			Why: "its data grows old, and it will lack commits when it has to take over",
			Fix: "PostgreSQL's log there says why: wrong credentials, a missing line in pg_hba.conf of the primary, or WAL that is gone; for the last, helios reinit " + n.Name,
		})
	}
	return found
}

// waiting is about commits that wait for more standbys than there are.
func waiting(p *Picture) []Finding {
	o := p.Overview
	if o == nil || o.Settings.Mode != failover.Semisync {
		return nil
	}
	able := 0
	for _, m := range o.Members {
		if m.CanSync() && m.Name != o.Primary {
			able++
		}
	}
	if least := max(o.Settings.MinReplicas, min(1, o.Settings.K)); able < o.Settings.K {
		return []Finding{{
			Code: "too_few_standbys", Severity: Problem,
			What: fmt.Sprintf("commits are to wait for %d standbys, and %d may be waited for", o.Settings.K, able),
			Why:  fmt.Sprintf("with fewer than %d they wait for ever", least),
			Fix:  fmt.Sprintf("helios settings set k=%d, or add a replica", max(1, able)),
		}}
	}
	return nil
}

// orders is about what an operator has switched off.
func orders(p *Picture) []Finding {
	if p.Overview == nil {
		return nil
	}
	var found []Finding
	note := func(code, node, what, why, fix string) {
		found = append(found, Finding{Code: code, Severity: Note, Node: node, What: what, Why: why, Fix: fix})
	}
	if p.Overview.Paused {
		note("paused", "", "the cluster is paused", "nothing is done without an operator", "helios resume")
	}
	if !p.Overview.Settings.AutoFailover {
		note("no_auto_failover", "", "failover is not automatic", "a primary that is lost stays lost until helios promote", "helios settings set auto_failover=on")
	}
	var postgres []string
	for _, m := range p.Overview.Members {
		if m.Postgres != "" {
			postgres = append(postgres, m.Postgres)
		}
		if m.Maintenance {
			note("maintenance", m.Name, "it is in maintenance", "it is neither promoted nor waited for", "helios maintenance off "+m.Name)
		}
	}
	if p.Servers == nil && len(postgres) > 0 {
		note("not_asked", "", "PostgreSQL itself was not asked", "settings, slots and credentials are only seen there", "helios doctor --dsn helios://postgres@"+strings.Join(postgres, ",")+"/postgres")
	}
	return found
}
