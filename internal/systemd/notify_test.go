package systemd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// manager listens as a service manager does, until the test ends.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func TestReadyIsToldOnceThePortIsOpen(t *testing.T) {
	conn := manager(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := ReadyOnceOpen(t.Context(), l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	told := make([]byte, 100)
	if n, err := conn.Read(told); err != nil || string(told[:n]) != "READY=1" {
		t.Errorf("the manager was told %q, %v, want READY=1", told[:n], err)
	}
}

func TestAPortThatStaysClosedIsNotReady(t *testing.T) {
	manager(t)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if err := ReadyOnceOpen(ctx, "127.0.0.1:1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ReadyOnceOpen of a closed port: %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestNobodyIsToldWhereNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := errors.Join(Notify(t.Context(), "STOPPING=1"), ReadyOnceOpen(t.Context(), "127.0.0.1:1")); err != nil {
		t.Error(err)
	}
}
