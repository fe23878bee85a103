package integration_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
)

// The figures of failovers: HELIOS_CAMPAIGN says how many of each kind there are. If it
// says nothing, there is one switchover. A client writes every 5 ms all the time.
func TestCampaign(t *testing.T) {
	rounds := 0
	if text := os.Getenv("HELIOS_CAMPAIGN"); text != "" {
		var err error
		rounds, err = strconv.Atoi(text)
		pgtest.OK(t, err)
	}
	type round func(*testing.T, *companions.Cluster, *clerk) (gap, back time.Duration)
	by := func(f nodeFault) round {
		return func(t *testing.T, c *companions.Cluster, k *clerk) (gap, back time.Duration) {
			return failOverOnce(t, c, k, f)
		}
	}
	for _, tt := range []struct {
		name  string
		flags []string
		round round
		lost  int // a round
	}{
		{"crash", nil, by(machineCrashes), inFlight(1)},
		{"freeze", nil, by(machineFreezes), inFlight(1)},
		{"switchover", nil, func(t *testing.T, c *companions.Cluster, k *clerk) (gap, back time.Duration) {
			return switchOnce(t, c, k, standbyOf(t, c))
		}, 0},
		{"crash semisync", []string{"--replication_mode=semisync"}, by(machineCrashes), 0},
		{"freeze semisync", []string{"--replication_mode=semisync"}, by(machineFreezes), 0},
	} {
		if rounds == 0 && tt.name != "switchover" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			c := startCompanions(t, companions.Options{Nodes: 3, Flags: tt.flags})
			k := employ(t, c, 1)
			var gaps, backs durations
			for range max(1, rounds) {
				gap, back := tt.round(t, c, k)
				gaps, backs = append(gaps, gap), append(backs, back)
			}
			verdict := k.audit(tt.lost * rounds)
			t.Logf("CAMPAIGN %s: %d rounds; write gap %v; old primary back %v; %d lost, %d of outcome unknown, %d acknowledged by two primaries",
				tt.name, rounds, gaps, backs, len(verdict.Lost), verdict.Unknown, len(verdict.Dual))
		})
	}
}

type durations []time.Duration

// String tells the least, the median and the greatest.
func (d durations) String() string {
	d = slices.Sorted(slices.Values(d))
	ms := func(i int) time.Duration { return d[i].Round(time.Millisecond) }
	return fmt.Sprintf("%v/%v/%v", ms(0), ms(len(d)/2), ms(len(d)-1))
}
