package relay

import "time"

const (
	// thriftBulk is how far a peer is behind that catches up.
	thriftBulk = 8 << 20
	// thriftWindow is how much WAL shows how fast it goes.
	thriftWindow = 16 << 20
	// thriftStart is how much goes over the network before the other way is tried: the
	// buffers of two sockets hide until then how fast it is.
	thriftStart = 16 << 20
	// thriftFirst is how much goes the better way before the other one is tried again.
	// It doubles with each trial, up to thriftLast.
	thriftFirst = 128 << 20
	thriftLast  = 4 << 30
	// thriftShare is what part of the time the encoder takes where it is what limits.
	thriftShare = 0.4
	// thriftMargin is how many times as fast it has to go without compression to go on
	// without: the network may be somebody's who pays for it.
	thriftMargin = 1.15
)

// A thrift finds out whether compression pays for one peer. Where a peer follows, it
// does: little is sent. Where one catches up over a link that takes WAL faster than that
// can be compressed, the encoder is what it waits for. Who is slow, the link, this
// machine, the peer, or where the WAL comes from, cannot be told by looking at one of
// them. So where the encoder takes much of the time both ways are tried, and what is
// measured is how soon WAL is gone. It is not safe for concurrent use.
type thrift struct {
	raw   bool          // the better way: without compression
	trial bool          // the other way is being tried
	warm  bool          // this window is not measured: the buffers are as the way before left them
	pace  time.Duration // what a window of the better way takes; 0 if that is not known
	slow  bool          // the last one has taken much longer

	began   time.Time     // of this window; zero while the peer follows
	sent    int64         // in it
	packing time.Duration // that the encoder has taken of it
	wired   int64         // that has gone over the network since the peer is behind
	left    int64         // until the next trial
	gap     int64         // from that trial to the one after it
}

// packs reports whether the next piece is compressed, which goes to a peer that is so
// far behind.
func (h *thrift) packs(behind uint64, now time.Time) bool {
	if behind < thriftBulk {
		// What is the better way stays known: under a heavy load it is soon behind again.
		h.began, h.trial, h.slow, h.wired = time.Time{}, false, false, 0
		return true
	}
	if h.began.IsZero() {
		h.gap = max(h.gap, thriftFirst)
		h.turn(false, now)
	}
	took := now.Sub(h.began)
	switch {
	case h.trial && h.worse(took):
		h.turn(false, now)
	case h.sent < thriftWindow:
	case h.warm:
		h.warm = false
		h.begin(now)
	case h.trial:
		h.raw, h.trial, h.slow, h.pace = !h.raw, false, false, took
		h.begin(now)
	default:
		h.look(took, now)
	}
	return h.raw == h.trial
}

// look takes in how long a window of the better way has taken, and begins the next: of
// the other way, if it is time for it or the better way is not what it was.
func (h *thrift) look(took time.Duration, now time.Time) {
	slower := h.pace > 0 && took > h.pace*3/2
	again := slower && h.slow // one window may be slow by chance
	if !slower || again {
		h.pace = took
	}
	h.slow = slower && !again
	limits := h.raw || h.wired >= thriftStart && float64(h.packing) >= thriftShare*float64(took)
	if limits && !h.slow && (h.left <= 0 || again) {
		h.turn(true, now)
		h.left, h.gap = h.gap, min(2*h.gap, thriftLast)
		return
	}
	h.begin(now)
}

// worse reports whether the way that is being tried has lost, after so long.
func (h *thrift) worse(took time.Duration) bool {
	limit := float64(h.pace) / thriftMargin
	if h.raw {
		limit = float64(h.pace) * thriftMargin
	}
	return float64(took) > limit
}

// turn goes on the better way, or with a trial of the other.
func (h *thrift) turn(trial bool, now time.Time) {
	h.trial, h.warm, h.slow = trial, true, false
	h.begin(now)
}

// begin begins a window.
func (h *thrift) begin(now time.Time) { h.began, h.sent, h.packing = now, 0, 0 }

// note says that so much WAL was sent, as how many bytes, and how long the encoder
// took for it.
func (h *thrift) note(n, bytes int, packing time.Duration) {
	h.sent += int64(n)
	h.left -= int64(n)
	h.wired += int64(bytes)
	h.packing += packing
}
