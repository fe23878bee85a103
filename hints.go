package helios

import (
	"context"
	"time"

	"github.com/heliosdb/helios/router"
)

// wish is what a context or an option argument says about a statement. A
// context carries one wish; what is set later wins.
type wish struct {
	hint    router.Hint
	node    string // "" for any
	level   *Consistency
	session *Session
	id      string // of a named session
}

// follow lets what the transaction's own context says, which may be nothing,
// outweigh what is said with one of its statements.
func (w *wish) follow(tx *wish) {
	if tx == nil {
		return
	}
	if tx.hint != router.HintNone || tx.node != "" {
		w.hint, w.node = tx.hint, tx.node
	}
	if tx.level != nil {
		w.level = tx.level
	}
	if tx.session != nil || tx.id != "" {
		w.session, w.id = tx.session, tx.id
	}
}

type wishKey struct{}

// wishOf returns the context's wish; nil if it has none.
func wishOf(ctx context.Context) *wish {
	w, _ := ctx.Value(wishKey{}).(*wish)
	return w
}

// with returns ctx with a wish that change was applied to.
func with(ctx context.Context, change func(*wish)) context.Context {
	var w wish
	if old := wishOf(ctx); old != nil {
		w = *old
	}
	change(&w)
	return context.WithValue(ctx, wishKey{}, &w)
}

// Primary sends the statements of the context to the primary, reads too.
func Primary(ctx context.Context) context.Context {
	return with(ctx, func(w *wish) { w.hint, w.node = router.HintPrimary, "" })
}

// Replica sends the statements of the context to a replica. A statement that a
// replica refuses because it writes still goes to the primary.
func Replica(ctx context.Context) context.Context {
	return with(ctx, func(w *wish) { w.hint, w.node = router.HintReplica, "" })
}

// Node sends the statements of the context to one node, named as in the DSN
// (host, or host:port), and nowhere else.
func Node(ctx context.Context, name string) context.Context {
	return with(ctx, func(w *wish) { w.hint, w.node = router.HintNone, name })
}

// WithConsistency gives the reads of the context another level than the DSN's.
func WithConsistency(ctx context.Context, level Consistency) context.Context {
	return with(ctx, func(w *wish) { w.level = &level })
}

// MaxStaleness lets the reads of the context miss what was committed less than
// d ago, and nothing older: the level bounded.
func MaxStaleness(ctx context.Context, d time.Duration) context.Context {
	return WithConsistency(ctx, Bounded(d))
}

// WithSession makes the statements of the context part of s: its reads see what
// its writes have written and what its reads have seen before.
func WithSession(ctx context.Context, s *Session) context.Context {
	return with(ctx, func(w *wish) { w.session, w.id = s, "" })
}

// SessionOf returns the session that [WithSession] put into the context.
func SessionOf(ctx context.Context) (*Session, bool) {
	w := wishOf(ctx)
	if w == nil || w.session == nil {
		return nil, false
	}
	return w.session, true
}

// WithSessionID makes the statements of the context part of a session that the
// *sql.DB keeps under id, such as "user-42". It is remembered for session_timeout
// after its last use.
func WithSessionID(ctx context.Context, id string) context.Context {
	return with(ctx, func(w *wish) { w.session, w.id = nil, id })
}

// Option is an argument of Exec and Query that says where to send the
// statement. It is taken out before the statement sees its arguments.
type Option struct{ apply func(*wish) }

var (
	// OnPrimary sends this statement to the primary.
	OnPrimary = Option{func(w *wish) { w.hint, w.node = router.HintPrimary, "" }}
	// OnReplica sends this statement to a replica.
	OnReplica = Option{func(w *wish) { w.hint, w.node = router.HintReplica, "" }}
)

// OnNode sends this statement to one node, named as in the DSN.
func OnNode(name string) Option {
	return Option{func(w *wish) { w.hint, w.node = router.HintNone, name }}
}

// AtLevel gives this statement another consistency level than the DSN's.
func AtLevel(level Consistency) Option {
	return Option{func(w *wish) { w.level = &level }}
}
