package consensus

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// A Recovery says how a cluster goes on that has lost most of its voters for good.
type Recovery struct {
	Dir  string // of the surviving node, which must not be running
	Name string // of the surviving node

	// Lost names every node that is gone and never comes back as it was. What is not
	// named here is a member still, and will be waited for.
	Lost []string
	// Addresses of survivors that have changed, by name.
	Addresses map[string]string

	Log *slog.Logger
}

// Recover takes the lost nodes out of the log on the disk of a survivor, without asking
// anybody, and returns who is left. It is the way out when a majority of the voters is gone, or
// none is lost and they do not find each other because all have new addresses. As long as a
// majority is left, losses are refused: the leader removes nodes.
//
// Every survivor has to be recovered in the same way before any is started. What
// the lost nodes alone had committed is gone, and what was on its way may come
// to be committed. If a lost node starts again with its old directory while others like it do, there
// are two clusters.
func Recover(r Recovery) ([]Server, error) {
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	log := newRaftLog(r.Log)
	store, err := openStore(r.Dir, log)
	if err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	servers, err := r.recover(store, log)
	if err := errors.Join(err, store.Close()); err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	r.Log.Warn("members were taken out of the log by force", "node", r.Name, "lost", r.Lost)
	return servers, nil
}

func (r Recovery) recover(store *store, log *raftLog) ([]Server, error) {
	c := Config{Name: r.Name, Dir: r.Dir}
	c.Timings, _ = TimingsOf("")
	// Nothing is sent: raft wants a transport that can write addresses.
	_, nowhere := raft.NewInmemTransport(raft.ServerAddress(r.Name))
	known, err := raft.GetConfiguration(c.raft(log), newMachine(), store.logs, store.bolt, store.snapshots, nowhere)
	if err != nil {
		return nil, err
	}
	left, err := r.survivors(known.Servers)
	if err != nil {
		return nil, err
	}
	err = raft.RecoverCluster(c.raft(log), newMachine(), store.logs, store.bolt, store.snapshots, nowhere, raft.Configuration{Servers: left})
	if err != nil {
		return nil, err
	}
	var servers []Server
	for _, s := range left {
		servers = append(servers, Server{Name: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers, nil
}

// survivors returns known without the lost ones, or why that must not be. If
// no voter survives, the node itself becomes one.
func (r Recovery) survivors(known []raft.Server) ([]raft.Server, error) {
	lost := map[string]bool{}
	for _, name := range r.Lost {
		lost[name] = true
	}
	var left []raft.Server
	voters, lostVoters := 0, 0
	for _, s := range known {
		if s.Suffrage == raft.Voter {
			voters++
		}
		if !lost[string(s.ID)] {
			s.Address = raft.ServerAddress(cmp.Or(r.Addresses[string(s.ID)], string(s.Address)))
			left = append(left, s)
			continue
		}
		delete(lost, string(s.ID))
		if s.Suffrage == raft.Voter {
			lostVoters++
		}
	}
	self := slices.IndexFunc(left, func(s raft.Server) bool { return string(s.ID) == r.Name })
	switch {
	case len(lost) > 0:
		return nil, fmt.Errorf("there is no %s to be lost", strings.Join(slices.Sorted(maps.Keys(lost)), ", no "))
	case self < 0:
		return nil, fmt.Errorf("%s is no member, or is lost itself", r.Name)
	case voters-lostVoters > voters/2 && (len(r.Lost) > 0 || len(r.Addresses) == 0):
		return nil, fmt.Errorf("%d of %d voters are left, which is a majority: the leader can remove the others", voters-lostVoters, voters)
	}
	if voters == lostVoters {
		left[self].Suffrage = raft.Voter
	}
	return left, nil
}
