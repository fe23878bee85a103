package relay

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// A Confirmation is how far WAL has come at one place. Zero is nothing.
type Confirmation struct {
	Write wal.LSN `json:"write"` // given to the operating system
	Flush wal.LSN `json:"flush"` // on disk
	Apply wal.LSN `json:"apply"` // replayed, and seen by queries
}

// A Mode is whose confirmations a relay passes to its source as its own.
type Mode uint8

const (
	// ConfirmNothing leaves the source without any. Commits never wait for
	// the relay or what stands behind it.
	ConfirmNothing Mode = iota
	// ConfirmReceipt tells the source what has arrived here: as written, since
	// memory is no disk. With a spool what the spool has flushed is told as
	// flushed.
	ConfirmReceipt
	// ConfirmQuorum tells what the k-th best of the named subscribers has
	// written, flushed and applied: a relay that is listed in
	// synchronous_standby_names then stands for k of its standbys.
	ConfirmQuorum
)

// A Policy says what a relay acknowledges to its source. The zero Policy is
// ConfirmNothing.
type Policy struct {
	Mode  Mode
	K     int      // ConfirmQuorum: how many subscribers, at least 1
	Names []string // ConfirmQuorum: which may count, by application_name; none means all
}

// String returns the policy as ParsePolicy reads it.
func (p Policy) String() string {
	switch p.Mode {
	case ConfirmReceipt:
		return "receipt"
	case ConfirmQuorum:
		names := "*"
		if len(p.Names) > 0 {
			names = strings.Join(p.Names, ", ")
		}
		return fmt.Sprintf("ANY %d (%s)", p.K, names)
	case ConfirmNothing:
	}
	return "none"
}

// MarshalText returns the policy as ParsePolicy reads it.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePolicy.
func (p *Policy) UnmarshalText(text []byte) error {
	parsed, err := ParsePolicy(string(text))
	if err == nil {
		*p = parsed
	}
	return err
}

// ParsePolicy reads "none", "receipt" or, as in synchronous_standby_names,
// "ANY 1 (s1, s2)", where "ANY 1 (*)" means any subscriber.
func ParsePolicy(text string) (Policy, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "", strings.EqualFold(text, "none"):
		return Policy{}, nil
	case strings.EqualFold(text, "receipt"):
		return Policy{Mode: ConfirmReceipt}, nil
	}
	refused := func(why string) error {
		return fmt.Errorf(`relay: acknowledge: %q: %s; write "none", "receipt" or "ANY 1 (standby1, standby2)"`, text, why)
	}
	head, list, found := strings.Cut(text, "(")
	list, closed := strings.CutSuffix(strings.TrimSpace(list), ")")
	words := strings.Fields(head)
	if !found || !closed || len(words) != 2 || !strings.EqualFold(words[0], "ANY") {
		return Policy{}, refused("not understood")
	}
	k, err := strconv.Atoi(words[1])
	if err != nil || k < 1 {
		return Policy{}, refused("the number of standbys must be 1 or more")
	}
	p := Policy{Mode: ConfirmQuorum, K: k}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.Trim(strings.TrimSpace(name), `"`)
		switch {
		case name == "":
			return Policy{}, refused("a name is empty")
		case name != "*" && slices.Contains(p.Names, name):
			return Policy{}, refused(fmt.Sprintf("%s is named twice", name))
		}
		p.Names = append(p.Names, name)
	}
	if slices.Contains(p.Names, "*") {
		p.Names = nil
	}
	if len(p.Names) > 0 && k > len(p.Names) {
		return Policy{}, refused(fmt.Sprintf("only %d standbys are named, so that no commit would ever be confirmed", len(p.Names)))
	}
	return p, nil
}

// counts reports whether the subscriber of that name may be one of the k.
func (p Policy) counts(name string) bool {
	return len(p.Names) == 0 || slices.ContainsFunc(p.Names, func(n string) bool { return strings.EqualFold(n, name) })
}

// quorum returns the positions that k of the confirmations have reached, each
// for itself.
func quorum(k int, of []Confirmation) Confirmation {
	kth := func(position func(Confirmation) wal.LSN) wal.LSN {
		if k < 1 || len(of) < k {
			return 0
		}
		slices.SortFunc(of, func(a, b Confirmation) int {
			switch x, y := position(a), position(b); {
			case x > y:
				return -1
			case x < y:
				return 1
			default:
				return 0
			}
		})
		return position(of[k-1])
	}
	return Confirmation{
		Write: kth(func(c Confirmation) wal.LSN { return c.Write }),
		Flush: kth(func(c Confirmation) wal.LSN { return c.Flush }),
		Apply: kth(func(c Confirmation) wal.LSN { return c.Apply }),
	}
}

// clamped returns c with no position beyond sent.
func (c Confirmation) clamped(sent wal.LSN) Confirmation {
	return Confirmation{Write: min(c.Write, sent), Flush: min(c.Flush, sent), Apply: min(c.Apply, sent)}
}

// furthest returns the larger of each position.
func (c Confirmation) furthest(o Confirmation) Confirmation {
	return Confirmation{Write: max(c.Write, o.Write), Flush: max(c.Flush, o.Flush), Apply: max(c.Apply, o.Apply)}
}
