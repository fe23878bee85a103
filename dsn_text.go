package helios

import (
	"slices"
	"strings"
	"time"
)

// Level is the kind of a [Consistency].
type Level uint8

const (
	// LevelSession lets a session read its own writes: the default.
	LevelSession Level = iota
	// LevelEventual lets any replica answer, however old its data.
	LevelEventual
	// LevelBounded lets a replica answer that misses nothing older than a bound.
	LevelBounded
	// LevelStrong sends reads to the primary.
	LevelStrong
)

var levelNames = []string{"session", "eventual", "bounded", "strong"}

// String returns the level as a DSN spells it, without a bound.
func (l Level) String() string { return nameOf(levelNames, l) }

// Consistency is what reads must see. The zero Consistency is [LevelSession].
// Values can be compared with ==.
type Consistency struct {
	Level Level
	Bound time.Duration // of LevelBounded: age of what a read may miss; 0 otherwise
}

// Consistency levels without a bound; [Bounded] makes those with one.
var (
	// Eventual lets any replica answer, however old its data.
	Eventual = Consistency{Level: LevelEventual}
	// PerSession lets a session read its own writes.
	PerSession = Consistency{Level: LevelSession}
	// Strong sends reads to the primary.
	Strong = Consistency{Level: LevelStrong}
)

// Bounded lets reads miss what was committed less than d ago, and nothing
// older. With d at 0 or below only the primary is fresh enough.
func Bounded(d time.Duration) Consistency { return Consistency{LevelBounded, max(d, 0)} }

// String returns the level as a DSN spells it, such as "bounded:200ms".
func (c Consistency) String() string {
	if c.Level == LevelBounded {
		return "bounded:" + c.Bound.String()
	}
	return c.Level.String()
}

// MarshalText implements [encoding.TextMarshaler].
func (c Consistency) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Consistency) UnmarshalText(text []byte) error {
	s := string(text)
	if bound, ok := strings.CutPrefix(s, "bounded:"); ok {
		d, err := time.ParseDuration(bound)
		if err != nil {
			return errorf("%q needs %s after bounded:", s, durationHint)
		}
		*c = Consistency{LevelBounded, d}
		return nil
	}
	level := slices.Index(levelNames, s)
	if level < 0 || Level(level) == LevelBounded {
		return errorf("%q is not one of eventual | bounded:200ms | session | strong", s)
	}
	*c = Consistency{Level: Level(level)}
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

// SessionAttrs says which nodes may be used at all: libpq's
// target_session_attrs.
type SessionAttrs uint8

const (
	// SessionAny uses every node for what it is good for.
	SessionAny SessionAttrs = iota
	// SessionReadWrite uses nodes that accept writes by default: a primary
	// without default_transaction_read_only.
	SessionReadWrite
	// SessionReadOnly uses nodes that do not accept writes by default.
	SessionReadOnly
	// SessionPrimary uses the primary.
	SessionPrimary
	// SessionStandby uses replicas.
	SessionStandby
	// SessionPreferStandby uses replicas while there are any.
	SessionPreferStandby
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
		return errorf("%q is not one of %s", text, strings.Join(names, " | "))
	}
	*v = T(i)
	return nil
}
