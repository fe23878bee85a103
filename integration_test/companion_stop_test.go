package integration_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// Somebody stops the primary in order, without a word to the companions: writes go
// on all the same, and nothing is lost.
func TestAPrimaryIsStoppedByHand(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	old := primaryOf(t, c)
	fault := time.Now()
	pgtest.OK(t, old.StopPostgres(pgtest.Context(t), pgctl.Fast))
	stopped := time.Since(fault)
	k.await(50)
	t.Logf("FIGURES write gap %v, stopped within %v; %s, was %s", k.ledger.Gap(fault), stopped, epochOf(t, c), old.Name)
	k.audit(0)
}

// The primary's disk is full: it crashes and cannot come back, and another takes
// over. When there is room again, it is a replica.
func TestAPrimaryHasNoRoomLeft(t *testing.T) {
	disk := smallDisk(t)
	c := startCompanions(t, companions.Options{Nodes: 3, Place: func(n *companions.Node) error {
		if n.Name == "n1" {
			n.Dir, n.State = filepath.Join(disk, "n1"), filepath.Join(disk, "n1.state")
		}
		return nil
	}})
	k := employ(t, c, clerks)
	k.tolerant = true // a table that cannot grow is an error
	ballast := filepath.Join(disk, "ballast")
	failOverOnce(t, c, k, nodeFault{
		strike: func(n *companions.Node) error {
			pgtest.OK(t, fillDisk(ballast))
			useUpWAL(t, n)
			return nil
		},
		mend: func(*companions.Node) error { return os.Remove(ballast) },
	})
	k.audit(inFlight(clerks))
}

// smallDisk returns the directory of a file system that is soon full.
func smallDisk(t *testing.T) string {
	t.Helper()
	disk, err := pgctl.MakeTempDir("helios-disk-")
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, os.Remove(disk)) })
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256m,mode=777"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no small disk can be made here:", err)
		}
		t.Skip("no small disk can be made here, which takes root:", err)
	}
	t.Cleanup(func() { pgtest.OK(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
	return disk
}

// fillDisk writes a file until there is no room left.
func fillDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}

// useUpWAL has a server begin new segments of its WAL until it cannot.
func useUpWAL(t *testing.T, n *companions.Node) {
	t.Helper()
	conn := connectTo(t, n)
	defer conn.Close(context.Background())
	for range 100 {
		if _, err := conn.Exec(pgtest.Context(t), "SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'helios', '')"); err != nil {
			t.Log("the disk is full:", err)
			return
		}
	}
	t.Fatal("the disk is not full")
}
