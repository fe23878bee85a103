package consensus_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover/consensus"
)

func TestRaftsLogIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := consensus.NewRaftLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		for range 100 {
			for _, id := range []raft.ServerID{"n2", "n3"} {
				log.Error("failed to heartbeat to", "peer", raft.Server{ID: id, Address: "a:1"}, "error", "refused")
			}
			log.Warn("heartbeat timeout reached, starting election")
			log.Info("entering follower state")
			log.Debug("accepted connection")
			time.Sleep(100 * time.Millisecond)
		}
		want := `level=WARN msg="raft: failed to heartbeat to" peer=n2 error=refused
level=WARN msg="raft: failed to heartbeat to" peer=n3 error=refused
level=INFO msg="raft: heartbeat timeout reached, starting election"
`
		if got := out.String(); got != want {
			t.Errorf("in ten seconds:\n%swant:\n%s", got, want)
		}
		time.Sleep(consensus.Quiet)
		log.With("id", "n3").Log(hclog.Error, "failed to heartbeat to", "peer", raft.Server{ID: "n3"})
		log.Log(hclog.Warn, "configuration", "servers", hclog.Fmt("%d", 3))
		if got := strings.Count(out.String(), "\n"); got != 5 {
			t.Errorf("%d lines after a while, want 5:\n%s", got, out.String())
		}
		if !strings.Contains(out.String(), "servers=3") || !strings.Contains(out.String(), "id=n3") {
			t.Errorf("attributes are missing:\n%s", out.String())
		}
	})
}
