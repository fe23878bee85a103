package helios

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// level is the kind of a Consistency.
type level uint8

const (
	levelSession level = iota
	levelEventual
	levelBounded
	levelStrong
)

var levelNames = []string{"session", "eventual", "bounded", "strong"}

// Consistency is what reads must see: one of [Eventual], [PerSession] and
// [Strong], or what [Bounded] returns. The zero Consistency is PerSession.
// Values can be compared with ==.
type Consistency struct {
	kind  level
	bound time.Duration // of levelBounded: how old what a read misses may be; 0 otherwise
}

var (
	// Eventual lets any replica answer, however old its data.
	Eventual = Consistency{kind: levelEventual}
	// PerSession lets a session see what it wrote: the default.
	PerSession = Consistency{kind: levelSession}
	// Strong sends reads to the primary.
	Strong = Consistency{kind: levelStrong}
)

// Bounded lets reads miss what was committed less than d ago, and nothing
// older. With d at 0 or below only the primary is fresh enough.
func Bounded(d time.Duration) Consistency { return Consistency{levelBounded, max(d, 0)} }

// String returns the consistency as a DSN spells it, such as "bounded:200ms".
func (c Consistency) String() string {
	if c.kind == levelBounded {
		return "bounded:" + c.bound.String()
	}
	return nameOf(levelNames, c.kind)
}

// MarshalText implements [encoding.TextMarshaler].
func (c Consistency) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Consistency) UnmarshalText(text []byte) error {
	s := string(text)
	if after, ok := strings.CutPrefix(s, "bounded:"); ok {
		d, err := time.ParseDuration(after)
		if err != nil || d < 0 {
			return fmt.Errorf(`%q: after "bounded:" comes %s`, s, durationHint)
		}
		*c = Bounded(d)
		return nil
	}
	kind := slices.Index(levelNames, s)
	if kind < 0 || level(kind) == levelBounded {
		return fmt.Errorf("%q is not one of eventual | bounded:200ms | session | strong", s)
	}
	*c = Consistency{kind: level(kind)}
	return nil
}

// LSNMode says when the position of a write is learned, by which the session's
// reads are held to it.
type LSNMode uint8

const (
	// LSNEager learns the position in the same round trip as the write.
	LSNEager LSNMode = iota
	// LSNLazy sends the session's next read to the primary and learns it there:
	// nothing is added to a write.
	LSNLazy
	// LSNOff never learns it; reads of a session may then miss its writes.
	LSNOff
)

var lsnNames = []string{"eager", "lazy", "off"}

// String returns the mode as a DSN spells it.
func (m LSNMode) String() string { return nameOf(lsnNames, m) }

// MarshalText implements [encoding.TextMarshaler].
func (m LSNMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *LSNMode) UnmarshalText(text []byte) error { return byName(lsnNames, text, m) }

// Fallback says who answers a read when no replica may answer it.
type Fallback uint8

const (
	// FallbackPrimary lets the primary answer.
	FallbackPrimary Fallback = iota
	// FallbackError makes the read fail with [ErrNoReplica]: the primary is kept
	// free of reads that it was not sized for.
	FallbackError
)

var fallbackNames = []string{"primary", "error"}

// String returns the fallback as a DSN spells it.
func (f Fallback) String() string { return nameOf(fallbackNames, f) }

// MarshalText implements [encoding.TextMarshaler].
func (f Fallback) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *Fallback) UnmarshalText(text []byte) error { return byName(fallbackNames, text, f) }

// RetryMode says whether the driver sends again what certainly had no effect.
type RetryMode uint8

const (
	// RetrySafe sends again what certainly had no effect, and nothing else.
	RetrySafe RetryMode = iota
	// RetryOff returns the first error.
	RetryOff
)

var retryNames = []string{"safe", "off"}

// String returns the mode as a DSN spells it.
func (m RetryMode) String() string { return nameOf(retryNames, m) }

// MarshalText implements [encoding.TextMarshaler].
func (m RetryMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *RetryMode) UnmarshalText(text []byte) error { return byName(retryNames, text, m) }

// MembersMode says whether the nodes of a cluster are those that its companions
// tell of, beside those of the DSN.
type MembersMode uint8

const (
	// MembersOn uses the nodes that companions tell of as if the DSN named them,
	// as long as they do.
	MembersOn MembersMode = iota
	// MembersOff uses the nodes that the DSN names, and no others.
	MembersOff
)

var membersNames = []string{"on", "off"}

// String returns the mode as a DSN spells it.
func (m MembersMode) String() string { return nameOf(membersNames, m) }

// MarshalText implements [encoding.TextMarshaler].
func (m MembersMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *MembersMode) UnmarshalText(text []byte) error { return byName(membersNames, text, m) }

// ResolveMode says of which writes the driver finds out what became of them when
// the answer to their commit was lost. Others end with [ErrOutcomeUnknown].
type ResolveMode uint8

const (
	// ResolveTransactions looks into transactions: it costs them no round trip
	// and hardly anything else.
	ResolveTransactions ResolveMode = iota
	// ResolveAll looks into single statements as well. It costs them no round
	// trip, but the server sends its answer in two parts.
	ResolveAll
	// ResolveOff looks into nothing.
	ResolveOff
)

var resolveNames = []string{"transactions", "all", "off"}

// String returns the mode as a DSN spells it.
func (m ResolveMode) String() string { return nameOf(resolveNames, m) }

// MarshalText implements [encoding.TextMarshaler].
func (m ResolveMode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *ResolveMode) UnmarshalText(text []byte) error { return byName(resolveNames, text, m) }

// SessionAttrs says which nodes may be used at all: libpq's
// target_session_attrs.
type SessionAttrs uint8

const (
	// TargetAny uses every node for what it is good for.
	TargetAny SessionAttrs = iota
	// TargetReadWrite uses the primary for everything.
	TargetReadWrite
	// TargetReadOnly uses replicas for everything; writes fail.
	TargetReadOnly
	// TargetPrimary means the same as TargetReadWrite.
	TargetPrimary
	// TargetStandby means the same as TargetReadOnly.
	TargetStandby
	// TargetPreferStandby means the same as TargetAny, which prefers replicas
	// wherever one will do.
	TargetPreferStandby
)

var sessionAttrsNames = []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}

// String returns the value as a DSN spells it.
func (a SessionAttrs) String() string { return nameOf(sessionAttrsNames, a) }

// MarshalText implements [encoding.TextMarshaler].
func (a SessionAttrs) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *SessionAttrs) UnmarshalText(text []byte) error { return byName(sessionAttrsNames, text, a) }

// nameOf returns the name of v, or "" if it has none: Check refuses that.
func nameOf[T ~uint8](names []string, v T) string {
	if int(v) >= len(names) {
		return ""
	}
	return names[v]
}

// byName sets v to the place of text in names.
func byName[T ~uint8](names []string, text []byte, v *T) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("%q is not one of %s", text, strings.Join(names, " | "))
	}
	*v = T(i)
	return nil
}
