package replication_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A wire is a connection whose other end has said all it will ever say.
type wire struct {
	io.Reader
	written bytes.Buffer
}

func (w *wire) Write(p []byte) (int, error)      { return w.written.Write(p) }
func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// says returns a connection that says something.
func says(text string) *wire { return &wire{Reader: strings.NewReader(text)} }

// message returns a message as it is on the wire.
func message(kind byte, body string) string {
	return string(kind) + string(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))) + body
}

const (
	copyBoth = "W\x00\x00\x00\x07\x00\x00\x00"
	ready    = "Z\x00\x00\x00\x05I"
)

func TestAClientBelievesNoLength(t *testing.T) {
	const huge = "\x7f\xff\xff\xff"
	for name, text := range map[string]string{
		"an answer of 2 GB":            "D" + huge + "x",
		"an answer of 60 MB":           "D\x03\xc0\x00\x00x",
		"a negative length":            "D\xff\xff\xff\xffx",
		"a length shorter than itself": "D\x00\x00\x00\x03x",
		"a row of columns that end":    message('D', "\x7f\xff\x00\x00"),
		"a column of 2 GB":             message('D', "\x00\x01"+huge),
		"an error that does not end":   message('E', "SERROR"),
		"a parameter without value":    message('S', "name"),
		"an unknown message":           message('?', ""),
		"half a header":                "D\x00",
		"nothing":                      "",
		"no row":                       ready,
		"a row that is too short":      message('D', "\x00\x01\x00\x00\x00\x01x") + ready,
		"a stream":                     copyBoth,
	} {
		c := replication.ClientOn(says(text))
		allocated := allocates(func() {
			if id, err := c.Identify(t.Context()); err == nil {
				t.Errorf("%s: Identify() = %+v, want an error", name, id)
			}
		})
		if allocated > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, allocated)
		}
	}
}

// allocates returns how many bytes f allocates, and whatever runs beside it.
func allocates(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestAClientBelievesNothingInAStream(t *testing.T) {
	for name, text := range map[string]string{
		"an empty message":          message('d', ""),
		"WAL without its header":    message('d', "w123"),
		"half a keepalive":          message('d', "k123"),
		"an answer in between":      message('D', ""),
		"the connection's end":      "",
		"the end within a header":   "d\x00\x00",
		"the end within WAL's":      "d\x00\x00\x00\x40w123",
		"a stream behind the end":   message('c', "") + copyBoth,
		"a next timeline of text":   message('c', "") + message('D', "\x00\x02\x00\x00\x00\x01x\x00\x00\x00\x030/1") + ready,
		"a next timeline 0":         message('c', "") + message('D', "\x00\x02\x00\x00\x00\x010\x00\x00\x00\x030/1") + ready,
		"a next timeline alone":     message('c', "") + message('D', "\x00\x01\x00\x00\x00\x012") + ready,
		"nothing behind the end":    message('c', ""),
		"an error that is not over": message('E', "SERROR\x00VERROR\x00C42P01\x00Mx\x00\x00"),
	} {
		c := replication.ClientOn(says(copyBoth + text))
		if started, _, err := c.Start(t.Context(), "", 1, 1, ""); !started || err != nil {
			t.Fatalf("Start() = %v, %v", started, err)
		}
		if e, err := c.Next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: Next() = %+v, %v; want an error that is not io.EOF", name, e, err)
		}
	}
}

func TestAnErrorInAStreamEndsItAndOnlyAFatalOneTheConnection(t *testing.T) {
	for severity, usable := range map[string]bool{"ERROR": true, "FATAL": false} {
		complaint := message('E', "S"+severity+"\x00V"+severity+"\x00C58P01\x00Mrequested WAL segment has already been removed\x00\x00")
		after := ""
		if usable {
			after = ready + message('C', "DROP\x00") + ready
		}
		c := replication.ClientOn(says(copyBoth + message('N', "\x00") + message('S', "a\x00b\x00") + complaint + after))
		if started, _, err := c.Start(t.Context(), "", 1, 1, ""); !started || err != nil {
			t.Fatalf("Start() = %v, %v", started, err)
		}
		_, err := c.Next()
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "58P01" {
			t.Errorf("%s: Next() = %v, want 58P01", severity, err)
		}
		if got := c.Parameter("a"); got != "b" {
			t.Errorf("Parameter(a) = %q, want b", got)
		}
		if err := c.SendStatus(replication.Status{}); err == nil {
			t.Errorf("%s: SendStatus after it succeeds", severity)
		}
		if err := c.DropSlot(t.Context(), "x"); (err == nil) != usable {
			t.Errorf("%s: the next command: %v", severity, err)
		}
	}
}

func TestMessagesOfAnotherKindAreHandedOn(t *testing.T) {
	w := says(copyBoth + message('d', "f0123456789") + message('d', "f") + message('d', "gabc") + message('C', "COPY 0\x00"))
	c := replication.ClientOn(w)
	if started, _, err := c.Start(t.Context(), "a", 0x16_B374D848, 3, " (frames '1')"); !started || err != nil {
		t.Fatalf("Start() = %v, %v", started, err)
	}
	if want := message('Q', `START_REPLICATION SLOT "a" PHYSICAL 16/B374D848 TIMELINE 3 (frames '1')`+"\x00"); w.written.String() != want {
		t.Errorf("Start sends %q, want %q", w.written.String(), want)
	}
	w.written.Reset()
	part := make([]byte, 4)
	for _, want := range []struct {
		kind byte
		size int
		read string
	}{{'f', 10, "0123"}, {'f', 0, ""}, {'g', 3, "abc"}} {
		e, err := c.Next()
		if err != nil || e != (replication.Event{Kind: want.kind, Size: want.size}) {
			t.Errorf("Next() = %+v, %v; want kind %c of %d bytes", e, err, want.kind, want.size)
		}
		if n, _ := c.Read(part); string(part[:n]) != want.read {
			t.Errorf("Read() = %q, want %q", part[:n], want.read)
		}
	}
	if err := c.SendCopy('a', []byte("bc")); err != nil || w.written.String() != message('d', "abc") {
		t.Errorf("SendCopy sends %q, %v", w.written.String(), err)
	}
	if e, err := c.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next() = %+v, %v; want io.EOF", e, err)
	}
}

func TestNoCommandHidesAnother(t *testing.T) {
	w := says("")
	c := replication.ClientOn(w)
	if err := c.DropSlot(t.Context(), "a\x00b"); err == nil || w.written.Len() > 0 {
		t.Errorf("DropSlot() = %v and sends %q", err, w.written.String())
	}
	_ = c.DropSlot(t.Context(), `a" WAIT; "`)
	if want := message('Q', `DROP_REPLICATION_SLOT "a"" WAIT; """`+"\x00"); w.written.String() != want {
		t.Errorf("DropSlot sends %q, want %q", w.written.String(), want)
	}
}

func FuzzClient(f *testing.F) {
	wal := string(replication.AppendDataHeader(nil, 1, 2, time.Now(), 3)) + "abc"
	keepalive := string(replication.AppendKeepalive(nil, 2, time.Now(), true))
	f.Add(copyBoth + wal + keepalive + message('c', "") + message('D', "\x00\x02\x00\x00\x00\x012\x00\x00\x00\x030/1") + message('C', "x\x00") + ready)
	f.Add(message('T', "\x00\x00") + message('D', "\x00\x00") + message('C', "SELECT\x00") + ready + copyBoth + message('C', "COPY 0\x00"))
	f.Add(message('E', "SERROR\x00VERROR\x00C42P01\x00Mx\x00\x00") + ready)
	f.Fuzz(func(t *testing.T, text string) {
		c := replication.ClientOn(says(text))
		_, _ = c.Identify(t.Context())
		for range 3 {
			_, _, _ = c.Start(t.Context(), "", 1, 1, "")
			part := make([]byte, 2)
			for {
				e, err := c.Next()
				if err != nil || e.Kind == replication.KindEnd {
					break
				}
				if e.Size < 0 || e.Size > 1<<31 {
					t.Fatalf("Next() = %+v", e)
				}
				_, _ = c.Read(part)
			}
		}
		_ = c.Close()
	})
}

func FuzzSession(f *testing.F) {
	f.Add(message('Q', "IDENTIFY_SYSTEM\x00") + message('P', "") + message('S', "") + message('X', ""))
	f.Add(message('d', "r123") + message('c', "") + message('Q', "START_REPLICATION 0/1\x00"))
	f.Add(message('d', strings.Repeat("x", 5000)) + message('f', "no\x00"))
	f.Fuzz(func(t *testing.T, text string) {
		s := replication.SessionOn(says(text))
		var err error
		for err == nil {
			_, err = s.ReadCommand()
		}
		s = replication.SessionOn(says(text))
		err = nil
		for err == nil || errors.Is(err, replication.ErrCopyDone) {
			var payload []byte
			payload, err = s.ReadCopy()
			if err == nil && len(payload) == 0 {
				t.Fatal("an empty payload")
			}
			_, _ = replication.ParseStatus(payload)
			_, _ = replication.ParseFeedback(payload)
		}
	})
}

func FuzzAccept(f *testing.F) {
	startup, err := (&pgproto3.StartupMessage{ProtocolVersion: 3 << 16, Parameters: map[string]string{"user": "a", "replication": "1"}}).Encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	request := "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	f.Add(request + string(startup) + message('p', "SCRAM-SHA-256\x00\x00\x00\x00\x0cn,,n=,r=abcd") + message('p', "c=biws,r=abcd,p="+strings.Repeat("A", 43)+"="))
	f.Add(string(startup) + message('p', "SCRAM-SHA-256-PLUS\x00\x00\x00\x00\x03y,,"))
	f.Add("\x16\x03\x01")
	known := verifier(f, "secret")
	server := &replication.Server{
		Authenticate: func(replication.Startup) replication.Method { return replication.Password },
		Verifier:     func(user string) (replication.Verifier, bool) { return known, user == "a" },
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := server.Accept(t.Context(), says(text)); err == nil {
			t.Fatalf("%q is let in: %+v", text, s.Startup)
		}
	})
}

func TestAStreamAllocatesNothing(t *testing.T) {
	const events = 1000
	body := make([]byte, 9000)
	one := append(replication.AppendDataHeader(nil, 1, 2, time.Now(), len(body)), body...)
	c := replication.ClientOn(&wire{Reader: io.MultiReader(strings.NewReader(copyBoth), bytes.NewReader(bytes.Repeat(one, events+1)))})
	if started, _, err := c.Start(t.Context(), "", 1, 1, ""); !started || err != nil {
		t.Fatal(started, err)
	}
	got := testing.AllocsPerRun(events, func() {
		if e, err := c.Next(); err != nil || e.Size != len(body) || e.Start != wal.LSN(1) {
			t.Fatal(e, err)
		}
		if n, err := c.Read(body); n != len(body) || err != nil {
			t.Fatal(n, err)
		}
	})
	if got != 0 {
		t.Errorf("receiving an event allocates %v times", got)
	}
}

func TestSendingAllocatesNothing(t *testing.T) {
	client, server := tcpPair(t)
	go io.Copy(io.Discard, client)
	s := replication.SessionOn(server)
	header, body := make([]byte, 30), make([]byte, 100)
	got := testing.AllocsPerRun(1000, func() {
		if err := s.Write(header, body); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("Write allocates %v times", got)
	}
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

func TestCloseDoesNotWaitForAServerThatDoesNotRead(t *testing.T) {
	client, server := tcpPair(t)
	if _, err := server.Write([]byte(copyBoth)); err != nil {
		t.Fatal(err)
	}
	c := replication.ClientOn(client)
	if started, _, err := c.Start(t.Context(), "", 1, 1, ""); !started || err != nil {
		t.Fatal(started, err)
	}
	sent, received := make(chan error, 1), make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = c.SendCopy('x', make([]byte, 1<<20))
		}
		sent <- err
	}()
	go func() {
		_, err := c.Next()
		received <- err
	}()
	began := time.Now()
	if err := c.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Close takes %v", took)
	}
	if err := <-sent; err == nil {
		t.Error("SendCopy succeeds after Close")
	}
	if err := <-received; err == nil {
		t.Error("Next succeeds after Close")
	}
}

// maxIdle is what a session may keep while nothing happens, in bytes.
const maxIdle = 16 << 10

func TestAnIdleSessionIsSmall(t *testing.T) {
	const sessions = 200
	waiting := make(chan struct{}, sessions)
	addr := serve(t, trusting(), func(s *replication.Session) {
		if s.StartCopy() != nil {
			return
		}
		waiting <- struct{}{}
		_, _ = s.ReadCopy()
	})
	startup, err := (&pgproto3.StartupMessage{ProtocolVersion: 3 << 16, Parameters: map[string]string{"user": "a", "replication": "1"}}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	before := inUse()
	for range sessions {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write(startup); err != nil {
			t.Fatal(err)
		}
		<-waiting
	}
	each := (inUse() - before) / sessions
	t.Logf("%d bytes a session, its goroutine and its peer included", each)
	if each > maxIdle {
		t.Errorf("an idle session keeps %d bytes, want at most %d", each, maxIdle)
	}
}

// inUse returns the memory of heap and stacks.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
