package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/heliosdb/helios/internal/durable"
)

const (
	lockName = "lock"   // is locked while the directory is open
	logName  = "log.db" // entries, and what this node has voted

	// Entries are rare and states small: a snapshot at every so many entries is a
	// few kilobytes, and who lacks more than trailingEntries gets it instead of them.
	snapshotEntries = 512
	trailingEntries = 256
	snapshotsKept   = 2
	cachedEntries   = 64 // the newest entries, which each idle message to a follower looks up
)

// A store is what a node has on disk. Everything in it was synced before it counts.
type store struct {
	lock      *os.File
	bolt      *raftboltdb.BoltStore
	logs      raft.LogStore // bolt behind a cache
	snapshots *raft.FileSnapshotStore
}

// openStore opens the store in dir, which it makes if need be. Nobody else may
// read it: it says who the members of the cluster are and where.
func openStore(dir string, log hclog.Logger) (*store, error) {
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return nil, err
	}
	s := &store{}
	var err error
	if s.lock, err = durable.Lock(filepath.Join(dir, lockName), ErrInUse); err != nil {
		return nil, err
	}
	if err := s.open(dir, log); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *store) open(dir string, log hclog.Logger) (err error) {
	if s.bolt, err = raftboltdb.NewBoltStore(filepath.Join(dir, logName)); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, logName), err)
	}
	if s.logs, err = raft.NewLogCache(cachedEntries, s.bolt); err != nil {
		return err
	}
	s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log)
	return err
}

// Close closes the store and lets others open it.
func (s *store) Close() error {
	var err error
	if s.bolt != nil {
		err = s.bolt.Close()
	}
	return errors.Join(err, s.lock.Close())
}

// clusterKey is where bolt has the number of the cluster.
var clusterKey = []byte("helios cluster")

// cluster returns the number of the cluster that the store belongs to; 0 if it
// belongs to none yet.
func (s *store) cluster() (uint64, error) {
	id, err := s.bolt.GetUint64(clusterKey)
	if err != nil && err.Error() == raftboltdb.ErrKeyNotFound.Error() {
		return 0, nil
	}
	return id, err
}

func (s *store) setCluster(id uint64) error { return s.bolt.SetUint64(clusterKey, id) }
