package relay

import (
	"errors"
	"fmt"
	"regexp"
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
	// flushed. Without one no commit is confirmed, whatever it waits for:
	// PostgreSQL counts nobody who has never flushed (SyncRepGetSyncRecPtr).
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
			quoted := make([]string, len(p.Names))
			for i, name := range p.Names {
				quoted[i] = quoteName(name)
			}
			names = strings.Join(quoted, ", ")
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
	for more := true; more; {
		var name string
		if name, list, more, err = cutName(list); err != nil {
			return Policy{}, refused(err.Error())
		}
		if name != "*" && p.lists(name) {
			return Policy{}, refused(name + " is named twice")
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
func (p Policy) counts(name string) bool { return len(p.Names) == 0 || p.lists(name) }

// lists reports whether a name is one of Names. As in PostgreSQL upper and lower
// case are the same.
func (p Policy) lists(name string) bool {
	return slices.ContainsFunc(p.Names, func(n string) bool { return sameName(n) == sameName(name) })
}

// sameName returns what is equal for names that are the same one.
func sameName(name string) string { return strings.ToLower(name) }

// plainName is what stands in a list without quotes.
var plainName = regexp.MustCompile(`^[\w.$-]+$`)

// quoteName returns a name as it stands in a list.
func quoteName(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// cutName reads the first name of a list, which is in quotes if it holds
// anything that means something here. It returns the rest, and whether there has
// to be another name in it.
func cutName(list string) (name, rest string, more bool, err error) {
	list = strings.TrimSpace(list)
	if !strings.HasPrefix(list, `"`) {
		name, rest, more = strings.Cut(list, ",")
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return "", "", false, errors.New("a name is empty")
		case strings.ContainsAny(name, `"()`):
			return "", "", false, fmt.Errorf("%s has to stand in quotes", name)
		}
		return name, rest, more, nil
	}
	var b strings.Builder
	for rest = list[1:]; ; {
		part, after, closed := strings.Cut(rest, `"`)
		b.WriteString(part)
		if !closed {
			return "", "", false, errors.New("a quote is not closed")
		}
		if rest = after; !strings.HasPrefix(rest, `"`) {
			break
		}
		b.WriteByte('"')
		rest = rest[1:]
	}
	between, rest, more := strings.Cut(rest, ",")
	switch {
	case strings.TrimSpace(between) != "":
		return "", "", false, fmt.Errorf("%q follows a name", strings.TrimSpace(between))
	case b.Len() == 0:
		return "", "", false, errors.New("a name is empty")
	}
	return b.String(), rest, more, nil
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
