package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	var status answer
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

func TestPingTellsWhatCompanionsSay(t *testing.T) {
	companion := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"companion":"n1","epoch":7,"term":1,"seq":1}`)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer companion.Close()
	addr := companion.Listener.Addr().String()
	_, out, _ := runHelios(pgtest.Context(t), "", "ping", "helios://127.0.0.1:1/?sslmode=disable&companion="+addr)
	if !strings.Contains(out, "companions: n1 says epoch 7, heard ") {
		t.Errorf("ping does not tell what the companion said:\n%s", out)
	}
	companion.CloseClientConnections()
	companion.Close()
	_, out, _ = runHelios(pgtest.Context(t), "", "ping", "--json", "helios://127.0.0.1:1/?sslmode=disable&companion="+addr)
	var status answer
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.Companion == nil || !strings.Contains(status.Companion.Reason, "refused") {
		t.Errorf("ping of a companion that is gone: %v in\n%s", err, out)
	}
}

func TestPingConcealsThePassword(t *testing.T) {
	status := helios.Status{Nodes: []helios.NodeStatus{{Reason: "cannot log in with geheim"}}}
	for password, want := range map[string]string{
		"geheim": "cannot log in with …",
		"":       "cannot log in with geheim",
	} {
		if got := answerOf(status, password).Nodes[0].Reason; got != want {
			t.Errorf("with password %q the reason is %q, want %q", password, got, want)
		}
	}
}

func TestPingRefusesWhatTakesNoWrites(t *testing.T) {
	for name, tt := range map[string]struct {
		answer answer
		want   string // in the error; "" for none
	}{
		"a primary":     {answer{Primary: "n1"}, ""},
		"no primary":    {answer{}, "no node is a primary"},
		"two primaries": {answer{Split: true}, "two nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.answer.verdict()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("verdict() = %v, want %q", err, tt.want)
			}
		})
	}
}
