package relay

import "time"

const (
	// thriftBulk is how far a peer is behind that catches up.
	thriftBulk = 8 << 20
	// thriftWindow is how much WAL shows how fast it goes.
	thriftWindow = 16 << 20
	// thriftFirst is how much goes the better way before the other one is tried again;
	// it doubles each time that the other is worse, up to thriftLast.
	thriftFirst = 128 << 20
	thriftLast  = 4 << 30
	// thriftStart is how much goes over the network before the other way is tried: the
	// buffers of two sockets hide until then how fast it is.
	thriftStart = 16 << 20
	// thriftShare is what part of the time the encoder takes where it is what limits.
	thriftShare = 0.4
	// thriftMargin is how many times as fast it has to go without compression to go on
	// without: the network may be somebody's who pays for it.
	thriftMargin = 1.15
)

// A thrift finds out whether compression pays for one peer. Where a peer follows, it
// always does: nobody waits for the encoder. Where it catches up over a link that
// takes WAL faster than that can be compressed, the encoder is what it waits for. Who
// is slow, the link, this machine, the peer, or where the WAL comes from, cannot be
// told by looking at one of them. So where the encoder takes much of the time both ways
// are tried, and what is measured is how soon WAL is gone. It is not safe for concurrent
// use.
type thrift struct {
	raw   bool          // the better way: without compression
	trial bool          // the other way is being tried
	pace  time.Duration // what the last window of the better way has taken; 0 for none

	began   time.Time     // of this window; zero while the peer follows
	sent    int           // in it
	packing time.Duration // that the encoder has taken of it
	wired   int           // that has gone over the network since the peer is behind
	left    int           // until the next trial
	gap     int           // from a trial to the next
}

// packs reports whether the next piece is compressed, which goes to a peer that is so
// far behind.
func (h *thrift) packs(behind uint64, now time.Time) bool {
	if behind < thriftBulk {
		*h = thrift{}
		return true
	}
	if h.began.IsZero() {
		h.began, h.gap = now, thriftFirst
	}
	took := now.Sub(h.began)
	switch {
	case h.trial && h.worse(took):
		h.settle(h.raw, now)
		h.gap = min(2*h.gap, thriftLast)
		h.left = h.gap
	case h.sent < thriftWindow:
	case h.trial:
		h.settle(!h.raw, now)
		h.pace, h.gap, h.left = took, thriftFirst, thriftFirst
	default:
		slower := h.pace > 0 && took > h.pace*3/2 // it is not what it was
		limits := h.raw || h.wired >= thriftStart && float64(h.packing) >= thriftShare*float64(took)
		h.pace = took
		h.settle(h.raw, now)
		h.trial = limits && (h.left <= 0 || slower)
	}
	return h.raw == h.trial
}

// worse reports whether the way that is being tried has lost, after so long.
func (h *thrift) worse(took time.Duration) bool {
	limit := float64(h.pace) / thriftMargin
	if h.raw {
		limit = float64(h.pace) * thriftMargin
	}
	return float64(took) > limit
}

// settle begins a window of the better way.
func (h *thrift) settle(raw bool, now time.Time) {
	h.raw, h.trial, h.began, h.sent, h.packing = raw, false, now, 0, 0
}

// note says that so much WAL was sent, as how many bytes, and how long the encoder
// took for it.
func (h *thrift) note(n, bytes int, packing time.Duration) {
	h.sent += n
	h.wired += bytes
	h.left -= n
	h.packing += packing
}
