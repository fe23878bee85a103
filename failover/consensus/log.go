package consensus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// quiet is how long a warning is not repeated. Raft says with every attempt
// that another node does not answer, several times in a second.
const quiet = time.Minute

// A raftLog writes raft's log to a [slog.Logger], a level lower than raft has it: an
// election is nothing to worry about, and a node that is away concerns others.
type raftLog struct {
	hclog.Logger // of what is not used here: does nothing
	log          *slog.Logger
	said         *said
}

// A said remembers when each warning was last written.
type said struct {
	mu   sync.Mutex
	when map[string]time.Time // by message and node
}

func newRaftLog(log *slog.Logger) *raftLog {
	return &raftLog{Logger: hclog.NewNullLogger(), log: log, said: &said{when: map[string]time.Time{}}}
}

// Error writes a warning, unless it has just been written.
func (l *raftLog) Error(msg string, args ...any) { l.seldom(slog.LevelWarn, msg, args) }

// Warn writes a fact, unless it has just been written.
func (l *raftLog) Warn(msg string, args ...any) { l.seldom(slog.LevelInfo, msg, args) }

// Info writes what only those want who look for a fault.
func (l *raftLog) Info(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }

// Debug writes the same.
func (l *raftLog) Debug(msg string, args ...any) { l.write(slog.LevelDebug, msg, args) }

// Log writes a message of any level.
func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Error:
		l.Error(msg, args...)
	case hclog.Warn:
		l.Warn(msg, args...)
	case hclog.NoLevel, hclog.Trace, hclog.Debug, hclog.Info, hclog.Off:
		l.Debug(msg, args...)
	}
}

// With returns a log that adds args to each message.
func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{Logger: l.Logger, log: l.log.With(attributes(args)...), said: l.said}
}

func (l *raftLog) seldom(level slog.Level, msg string, args []any) {
	if l.said.lately(msg+"\x00"+about(args), time.Now()) {
		level = slog.LevelDebug
	}
	l.write(level, msg, args)
}

func (l *raftLog) write(level slog.Level, msg string, args []any) {
	if ctx := context.Background(); l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "raft: "+msg, attributes(args)...) //nolint:sloglint // the message is raft's
	}
}

// lately reports whether what was written within quiet before now, and notes
// that it is written otherwise.
func (s *said) lately(what string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.when[what]; ok && now.Sub(last) < quiet {
		return true
	}
	s.when[what] = now
	return false
}

// about returns which node a message is about.
func about(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "server-id", "from", "id":
			return text(args[i+1])
		}
	}
	return ""
}

// attributes makes the values of args readable.
func attributes(args []any) []any {
	out := make([]any, len(args))
	for i, arg := range args {
		if i%2 == 1 {
			arg = text(arg)
		}
		out[i] = arg
	}
	return out
}

func text(v any) string {
	switch v := v.(type) {
	case raft.Server:
		return string(v.ID)
	case hclog.Format:
		if len(v) > 0 {
			if format, ok := v[0].(string); ok {
				return fmt.Sprintf(format, v[1:]...)
			}
		}
	}
	return fmt.Sprint(v)
}
