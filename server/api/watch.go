package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// A counter admits so many at a time.
type counter struct {
	limit int64
	now   atomic.Int64
}

// enter reports whether there was room; who entered must leave.
func (c *counter) enter() bool {
	if c.now.Add(1) <= c.limit {
		return true
	}
	c.now.Add(-1)
	return false
}

func (c *counter) leave() { c.now.Add(-1) }

// A pace is how often a listener wants to hear of what.
type pace struct {
	positions time.Duration // at most so often of positions alone
	heartbeat time.Duration // at least so often
}

// paceOf reads what a listener asks for.
func paceOf(query url.Values) (pace, error) {
	p := pace{positions: 100 * time.Millisecond, heartbeat: 2 * time.Second}
	for _, key := range []struct {
		name        string
		value       *time.Duration
		least, most time.Duration
	}{
		{"positions", &p.positions, 10 * time.Millisecond, time.Hour},
		{"heartbeat", &p.heartbeat, 100 * time.Millisecond, time.Hour},
	} {
		text := query.Get(key.name)
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < key.least || d > key.most {
			return p, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%s: %q is not a duration between %v and %v", key.name, text, key.least, key.most)}
		}
		*key.value = d
	}
	return p, nil
}

// due returns how long to wait before next is told to a listener who was told last,
// so long ago; 0 or less means now.
func (p pace) due(last, next *line, ago time.Duration) time.Duration {
	switch {
	case last == nil || last.matter != next.matter:
		return 0
	case last.of != next.of:
		return min(p.positions, p.heartbeat) - ago
	default:
		return p.heartbeat - ago
	}
}

// watch answers GET /v1/watch with a line for each bulletin, until the listener goes away
// or the companion shuts down.
func (h *Handler) watch(w http.ResponseWriter, r *http.Request) error {
	p, err := paceOf(r.URL.Query())
	if err != nil {
		return err
	}
	if !h.listeners.enter() {
		return &Error{Code: CodeBusy, Message: fmt.Sprintf("%d listen already", h.listeners.limit), Hint: "listen to another companion"}
	}
	defer h.listeners.leave()
	select {
	case <-h.closing:
		return &Error{Code: CodeClosing, Message: "this companion shuts down", Hint: "listen to another companion"}
	default:
	}
	header := w.Header()
	header.Set("Content-Type", "application/x-ndjson")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Accel-Buffering", "no") // a proxy that collects lines would hold back what is urgent
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	s := listener{pace: p, out: w, control: http.NewResponseController(w), patience: h.cfg.WriteTimeout}
	if err := s.control.Flush(); err == nil {
		h.stream(r.Context(), &s)
	}
	return nil
}

// stream tells a listener every bulletin that it is to hear. It holds none back: when the
// listener is slow, what it missed is gone, and it gets the newest.
func (h *Handler) stream(ctx context.Context, s *listener) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b, changed := h.cfg.Cluster.Bulletin()
		wait := time.Hour
		if b != nil {
			now := time.Now()
			next := h.lines.encode(b, now)
			if wait = s.pace.due(s.last, next, now.Sub(s.at)); wait <= 0 {
				if s.tell(next, now) != nil {
					return
				}
				continue // it took its time: there may be news
			}
		}
		timer.Reset(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-h.closing:
			return
		}
	}
}

// A listener is one stream.
type listener struct {
	pace     pace
	out      http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // for one line to be taken

	last *line // what it was told
	at   time.Time
}

// tell sends a line. The error says that nobody is there, or does not read.
func (s *listener) tell(l *line, now time.Time) error {
	s.last, s.at = l, now
	// Not every ResponseWriter has deadlines; those of net/http have.
	s.control.SetWriteDeadline(now.Add(s.patience)) //nolint:errcheck // see above
	if _, err := s.out.Write(l.text); err != nil {
		return err
	}
	if err := s.control.Flush(); err != nil {
		return err
	}
	s.control.SetWriteDeadline(time.Time{}) //nolint:errcheck // see above
	return nil
}
