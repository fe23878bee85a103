package pool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// chunks is a connection that hands out what it holds in pieces, and then err.
type chunks struct {
	net.Conn
	pieces [][]byte
	err    error
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, c.err
	}
	n := copy(b, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

// cutUp cuts b into pieces of random sizes.
func cutUp(b []byte, random *rand.Rand) (pieces [][]byte) {
	for len(b) > 0 {
		n := 1 + random.IntN(min(len(b), 1<<random.IntN(16)))
		pieces, b = append(pieces, b[:n]), b[n:]
	}
	return pieces
}

// sentMessage is a message as the server sends it.
func sentMessage(kind byte, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

func TestMessagesAreWholeHoweverTheyArrive(t *testing.T) {
	var stream []byte
	var want []string
	for i, size := range []int{0, 1, 5, 8187, 8188, 8192, 3, 70_000, 0, 300_000, 9, 8183} {
		body := strings.Repeat(string(rune('a'+i)), size)
		stream = append(stream, sentMessage(byte('A'+i), body)...)
		want = append(want, string(byte('A'+i))+body)
	}
	for seed := range uint64(200) {
		in := inbox{from: &chunks{pieces: cutUp(stream, rand.New(rand.NewPCG(seed, 0))), err: io.EOF}}
		for _, w := range want {
			kind, body, err := in.next()
			if got := string(kind) + string(body); err != nil || got != w {
				t.Fatalf("seed %d: next() = a message of %d bytes, %v, want %d bytes", seed, len(got), err, len(w))
			}
		}
		if !in.empty() {
			t.Fatalf("seed %d: something is left in the buffer", seed)
		}
		if _, _, err := in.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("seed %d: next() at the end = %v", seed, err)
		}
	}
}

func TestAMessageThatADeadlineCutInTwoIsKept(t *testing.T) {
	message := sentMessage('D', "row")
	for cut := 1; cut < len(message); cut++ {
		conn := &chunks{pieces: [][]byte{message[:cut]}, err: os.ErrDeadlineExceeded}
		in := inbox{from: conn}
		if _, _, err := in.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("next() = %v, want a deadline that has passed", err)
		}
		if in.empty() {
			t.Errorf("what had come, %d bytes, is gone", cut)
		}
		conn.pieces = [][]byte{message[cut:]}
		if kind, body, err := in.next(); kind != 'D' || string(body) != "row" || err != nil {
			t.Errorf("next() = %q, %q, %v, want the whole row", kind, body, err)
		}
	}
}

func TestAMessageOfAbsurdLengthIsRefusedAndTakesNoMemory(t *testing.T) {
	for name, header := range map[string][]byte{
		"too short": {'D', 0, 0, 0, 3},
		"negative":  {'D', 0xff, 0xff, 0xff, 0xff},
		"too long":  {'D', 0x40, 0, 0, 1},
	} {
		in := inbox{from: &chunks{pieces: [][]byte{header}, err: io.EOF}}
		if _, _, err := in.next(); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%s: next() = %v", name, err)
		}
	}
	in := inbox{from: &chunks{pieces: [][]byte{{'D', 0x3f, 0, 0, 0}}, err: io.EOF}}
	if _, _, err := in.next(); !errors.Is(err, io.ErrUnexpectedEOF) || len(in.buf) > inboxSize {
		t.Errorf("next() of an announced gigabyte = %v, with a buffer of %d bytes", err, len(in.buf))
	}
}

func FuzzInbox(f *testing.F) {
	f.Add(append(sentMessage('Z', "I"), sentMessage('D', "\x00\x01\x00\x00\x00\x01x")...), uint64(1))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		read := func(pieces [][]byte) (got []string) {
			in := inbox{from: &chunks{pieces: pieces, err: io.EOF}}
			for {
				kind, body, err := in.next()
				if err != nil {
					return append(got, err.Error())
				}
				got = append(got, string(kind)+string(body))
			}
		}
		whole := read([][]byte{stream})
		if cut := read(cutUp(bytes.Clone(stream), rand.New(rand.NewPCG(seed, 0)))); !reflect.DeepEqual(cut, whole) {
			t.Errorf("in pieces %q, in one piece %q", cut, whole)
		}
	})
}

// A row is cut up as pgproto3 does.
func FuzzRow(f *testing.F) {
	f.Add([]byte("\x00\x02\xff\xff\xff\xff\x00\x00\x00\x01x"))
	f.Add([]byte("\x00\x01\x00\x00\x00\x00rest"))
	var row [][]byte
	f.Fuzz(func(t *testing.T, body []byte) {
		var want pgproto3.DataRow
		wantErr := want.Decode(body)
		got, err := readRow(row, body)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("readRow = %v, pgproto3 says %v", err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want.Values) {
			t.Errorf("readRow = %q, want %q", got, want.Values)
		}
	})
}

// However the answer arrives, looking ahead finds how it ends and takes nothing of it.
func TestTheEndOfAnAnswerIsForeseen(t *testing.T) {
	row, done := sentMessage(kindDataRow, strings.Repeat("r", 300)), sentMessage(kindCommandComplete, "INSERT 0 1\x00")
	ready, refusal := sentMessage(kindReady, "I"), sentMessage(kindError, "SFATAL\x00\x00")
	join := func(messages ...[]byte) []byte { return bytes.Join(messages, nil) }
	for name, tt := range map[string]struct {
		stream []byte
		want   foresight
	}{
		"two statements":     {join(row, done, row, done, refusal), completed},
		"one and the end":    {join(row, done, ready), completed},
		"one and an error":   {join(row, done, refusal), broken},
		"one and no more":    {join(row, done, row[:100]), broken},
		"half a head":        {join(row, done[:3]), broken},
		"a length of nought": {join(row, []byte{kindDataRow, 0, 0, 0, 0}, done, done), broken},
		"many rows":          {join(bytes.Repeat(row, 200), done, done), completed},
		"too many rows":      {join(bytes.Repeat(row, 300), done, done), unforeseen},
		"a row too long":     {join(row, sentMessage(kindDataRow, strings.Repeat("r", 1<<16)), done, done), unforeseen},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(50) {
				in := inbox{from: &chunks{pieces: cutUp(tt.stream, rand.New(rand.NewPCG(seed, 0))), err: io.EOF}}
				_, body, err := in.next()
				if err != nil {
					t.Fatal(err)
				}
				in.unread(body)
				if got := in.ahead(2, 1<<16); got != tt.want {
					t.Fatalf("seed %d: ahead() = %d, want %d", seed, got, tt.want)
				}
				if kind, again, err := in.next(); kind != kindDataRow || len(again) != 300 || err != nil {
					t.Fatalf("seed %d: then %q, %d bytes, %v, want the row", seed, kind, len(again), err)
				}
			}
		})
	}
}
