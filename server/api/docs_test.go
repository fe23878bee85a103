package api_test

import (
	"os"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/server/api"
)

func TestDocsNameEveryRouteCodeAndMetric(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := string(text)
	var names []string
	for _, route := range api.Routes() {
		_, path, _ := strings.Cut(route, " ")
		names = append(names, strings.Replace(path, "{name}", "n3", 1))
	}
	for _, code := range api.Codes() {
		names = append(names, "`"+string(code)+"`")
	}
	m := api.NewMetrics()
	m.Rejoined("start", 0)
	h := api.New(api.Config{Cluster: apifake.New("n1"), Metrics: m})
	ask(h, "POST", "/v1/pause", "{}")
	for series := range scrape(t, h) {
		name, _, _ := strings.Cut(series, "{")
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if strings.HasPrefix(name, "helios_") {
			names = append(names, "`"+name)
		}
	}
	for _, name := range names {
		if !strings.Contains(docs, name) {
			t.Errorf("docs/api.md does not say what %s is", name)
		}
	}
}
