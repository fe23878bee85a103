package relay

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A position is what one relay tells another of a standby behind it.
type position struct {
	name      string
	timeline  wal.Timeline // of its session
	confirmed Confirmation
}

// maxPositions is how many standbys one message tells of.
const maxPositions = 4096

// encodePositions returns the payload of a kindPositions message, without its
// kind: a count, and for each standby its name behind a length, its timeline,
// and what it has written, flushed and applied.
func encodePositions(of []position) []byte {
	of = of[:min(len(of), maxPositions)]
	dst := binary.BigEndian.AppendUint16(nil, uint16(len(of))) //nolint:gosec // at most maxPositions
	for _, p := range of {
		name := p.name[:min(len(p.name), 255)]
		dst = append(dst, byte(len(name)))
		dst = append(dst, name...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.timeline))
		for _, at := range []wal.LSN{p.confirmed.Write, p.confirmed.Flush, p.confirmed.Apply} {
			dst = binary.BigEndian.AppendUint64(dst, uint64(at))
		}
	}
	return dst
}

var errPositions = errors.New("relay: malformed report of positions")

// parsePositions is the reverse of encodePositions.
func parsePositions(b []byte) ([]position, error) {
	if len(b) < 2 {
		return nil, errPositions
	}
	count := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if count > maxPositions {
		return nil, errPositions
	}
	var of []position
	for range count {
		if len(b) < 1 || len(b) < 1+int(b[0])+28 {
			return nil, errPositions
		}
		behind := 1 + int(b[0])
		p := position{name: string(b[1:behind])}
		b = b[behind:]
		p.timeline = wal.Timeline(binary.BigEndian.Uint32(b))
		p.confirmed = Confirmation{
			Write: wal.LSN(binary.BigEndian.Uint64(b[4:])),
			Flush: wal.LSN(binary.BigEndian.Uint64(b[12:])),
			Apply: wal.LSN(binary.BigEndian.Uint64(b[20:])),
		}
		b = b[28:]
		of = append(of, p)
	}
	if len(b) > 0 {
		return nil, errPositions
	}
	return of, nil
}

// positions returns what a relay tells its own source of its subscribers, and
// of those that other relays have told it of.
func (r *Replicator) positions() []position {
	r.mu.Lock()
	defer r.mu.Unlock()
	var of []position
	for _, s := range r.subs {
		if s.timeline != 0 && !s.relay {
			of = append(of, position{s.name, s.timeline, s.confirmed})
		}
	}
	return of
}

// tell takes the place of what the relay s told before of the standbys behind
// it.
func (s *Subscriber) tell(of []position) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	s.relay = true
	r.subs = slices.DeleteFunc(r.subs, func(x *Subscriber) bool {
		return x.via == s && !slices.ContainsFunc(of, func(p position) bool { return p.name == x.name })
	})
	now := time.Now()
	for _, p := range of {
		i := slices.IndexFunc(r.subs, func(x *Subscriber) bool { return x.via == s && x.name == p.name })
		if i < 0 {
			i = len(r.subs)
			r.subs = append(r.subs, r.newSubscriberLocked(p.name, s.addr, s))
		}
		x := r.subs[i]
		// What it has, it has through s.
		sent := wal.LSN(s.sent.Load())
		x.timeline, x.heard = p.timeline, now
		x.Sent(sent, StateStreaming)
		x.confirmed = p.confirmed.clamped(sent)
	}
	r.settleLocked()
}
