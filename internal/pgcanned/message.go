package pgcanned

import (
	"bytes"
	"encoding/binary"
)

// fields reads the fields of a message one after the other. What is missing
// reads as zero: the clients are drivers that know the protocol.
type fields struct{ b []byte }

// text reads what ends with a zero byte.
func (f *fields) text() []byte {
	before, after, _ := bytes.Cut(f.b, []byte{0})
	f.b = after
	return before
}

// short reads two bytes.
func (f *fields) short() int {
	if len(f.b) < 2 {
		return 0
	}
	n := binary.BigEndian.Uint16(f.b)
	f.b = f.b[2:]
	return int(n)
}

// skip passes over n bytes; a negative n, the length of a NULL, is none.
func (f *fields) skip(n int) { f.b = f.b[min(max(n, 0), len(f.b)):] }

// long reads four bytes.
func (f *fields) long() int {
	if len(f.b) < 4 {
		return 0
	}
	n := int32(binary.BigEndian.Uint32(f.b))
	f.b = f.b[4:]
	return int(n)
}

// open begins a message of the given kind at the end of dst and returns where
// its length stands, for shut.
func open(dst []byte, kind byte) (message []byte, at int) {
	return append(dst, kind, 0, 0, 0, 0), len(dst) + 1
}

// shut completes the message whose length stands at at.
func shut(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

// message appends a whole message whose body is made of texts, each ended by a
// zero byte.
func message(dst []byte, kind byte, texts ...string) []byte {
	dst, at := open(dst, kind)
	for _, t := range texts {
		dst = append(append(dst, t...), 0)
	}
	return shut(dst, at)
}

// failure appends an ErrorResponse.
func failure(dst []byte, severity, code, text string) []byte {
	dst, at := open(dst, 'E')
	for _, field := range []string{"S" + severity, "V" + severity, "C" + code, "M" + text} {
		dst = append(append(dst, field...), 0)
	}
	return shut(append(dst, 0), at)
}
