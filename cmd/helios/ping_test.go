package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

func TestPingTellsWhatEveryNodeIs(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	code, out, stderr := runHelios(ctx, "", "ping", cluster.DSN())
	lines := strings.Split(out, "\n")
	if code != exitOK || len(lines) != 4 {
		t.Fatalf("ping = %d, %q:\n%s", code, stderr, out)
	}
	for i, role := range []string{"primary", "replica"} {
		fields := strings.Fields(lines[i+1])
		if fields[0] != cluster.Nodes[i].Addr() || fields[1] != role || fields[2] != "up" {
			t.Errorf("line of %s: %q, want it up as a %s", cluster.Nodes[i].Name, lines[i+1], role)
		}
	}
	pgtest.OK(t, cluster.Kill(cluster.Primary()))
	code, out, stderr = runHelios(ctx, "", "ping", cluster.DSN(), "--json")
	var status helios.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if code != exitFailed || !strings.Contains(stderr, "no node is a primary") {
		t.Errorf("ping without a primary = %d, %q, want %d", code, stderr, exitFailed)
	}
	if status.Primary != "" || status.Nodes[0].State != "down" || status.Nodes[1].Role != "replica" {
		t.Errorf("ping without a primary: %+v", status)
	}
}

func TestPingDoesNotWaitForASilentNode(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 1, Proxied: true})
	cluster.Nodes[1].Proxy.BlackHole()
	code, out, stderr := runHelios(pgtest.Context(t), "", "ping", cluster.DSN("probe_timeout=1h"), "--timeout", "300ms")
	if code != exitOK || !strings.Contains(out, cluster.Nodes[0].Addr()) {
		t.Errorf("ping = %d, %q, want the primary's answer:\n%s", code, stderr, out)
	}
	if !strings.Contains(out, "300ms") {
		t.Errorf("ping does not say why the replica did not answer:\n%s", out)
	}
}

func TestPingConcealsThePassword(t *testing.T) {
	status := helios.Status{Nodes: []helios.NodeStatus{{Reason: "cannot log in with geheim"}}}
	conceal(&status, "geheim")
	if got := status.Nodes[0].Reason; strings.Contains(got, "geheim") {
		t.Errorf("reason is %q", got)
	}
	conceal(&status, "")
	if got, want := status.Nodes[0].Reason, "cannot log in with …"; got != want {
		t.Errorf("reason is %q, want %q", got, want)
	}
}
