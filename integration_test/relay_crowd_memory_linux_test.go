package integration_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A thousand subscribers that have everything cost a relay little more than their
// sockets.
func TestAThousandIdleSubscribersTakeLittleMemory(t *testing.T) {
	crowd, most := 1000, int64(64<<10)
	if testing.Short() {
		crowd = 200
	}
	w := startWellspring(t)
	end := w.flow(1 << 20)
	r := startRelayProcess(t, "crowded", w.conninfo())
	awaitListening(t, r.settings.Listen)
	first := startStandIn(t, r.conninfo("first"))
	first.arrived(end)
	before := memoryOf(t, r)
	subscribers := make([]*standIn, crowd)
	var entering sync.WaitGroup
	entry := make(chan struct{}, 16)
	for n := range subscribers {
		entry <- struct{}{}
		entering.Go(func() {
			subscribers[n] = startStandIn(t, r.conninfo(fmt.Sprintf("s%d", n)))
			<-entry
		})
	}
	entering.Wait()
	end = w.flow(1 << 20)
	first.arrived(end)
	for _, s := range subscribers {
		s.arrived(end)
	}
	each := (memoryOf(t, r) - before) / int64(crowd)
	t.Logf("FIGURES %d subscribers, %d bytes of memory for each; %d MB in all", crowd, each, memoryOf(t, r)>>20)
	if each > most && !racing() {
		t.Errorf("each of %d subscribers takes %d bytes, want %d at most", crowd, each, most)
	}
}

// memoryOf returns how much memory a relay's process has, in bytes.
func memoryOf(t testing.TB, r *relayProcess) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	pgtest.OK(t, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, err := fmt.Sscanf(rest, "%d", &bytes)
			pgtest.OK(t, err)
			return bytes << 10
		}
	}
	t.Fatalf("no VmRSS in\n%s", status)
	return 0
}
