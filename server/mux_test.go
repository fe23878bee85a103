package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// openPort shares a port of the loopback interface for a test.
func openPort(t *testing.T) (*mux, string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newMux(l, nil, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return m, l.Addr().String()
}

func TestTheFirstByteSaysWhatAConnectionSpeaks(t *testing.T) {
	m, addr := openPort(t)
	for name, tt := range map[string]struct {
		hello string
		wire  wire
	}{
		"a standby":        {"\x00\x00\x00\x08\x04\xd2\x16\x2f", wireRelay},
		"another's log":    {"\x01greeting", wireRaft},
		"a person's curl":  {"GET / HTTP/1.1\r\n\r\n", wireHTTP},
		"a call of a peer": {"POST /peer/report HTTP/1.1\r\n\r\n", wireHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tt.hello); err != nil {
				t.Fatal(err)
			}
			got, err := m.on(tt.wire).Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			if _, ok := got.(*net.TCPConn); !ok {
				t.Errorf("Accept returns a %T, want the socket itself", got)
			}
			conn.(*net.TCPConn).CloseWrite()
			all, err := io.ReadAll(bufio.NewReader(got))
			if err != nil || string(all) != tt.hello {
				t.Errorf("it reads %q, %v; want %q", all, err, tt.hello)
			}
		})
	}
}

func TestTLSWithoutACertificateIsTurnedAway(t *testing.T) {
	_, addr := openPort(t)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "\x16\x03\x01")
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Read = %v, want the end of the connection", err)
	}
}

func TestASilentConnectionEndsWithTheMux(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newMux(l, nil, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- m.run(ctx) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stop()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("run waits for a connection that says nothing")
	}
}
