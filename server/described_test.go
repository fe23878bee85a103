package server

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/openapi"
)

// ask sends a request to the companion of a member, as from its own machine.
func (c *troupe) ask(method, member, path, body string) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, "http://"+member+":7101"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Host = "localhost:7101"
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DialContext: c.net.DialContext, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// text returns the body of an answer; of a stream the first line.
func (c *troupe) text(resp *http.Response) []byte {
	c.t.Helper()
	text, err := bufio.NewReader(resp.Body).ReadBytes('\n')
	if err != nil && err != io.EOF {
		c.t.Fatal(err)
	}
	return text
}

func TestACompanionAnswersAsDescribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		document, err := io.ReadAll(c.ask(http.MethodGet, "n1", "/openapi.json", "").Body)
		if err != nil {
			t.Fatal(err)
		}
		d, err := openapi.Parse(document)
		if err != nil {
			t.Fatal(err)
		}
		everything := func(when string) {
			t.Helper()
			for path, operations := range d.Paths {
				// What Prometheus reads is no JSON.
				if _, ok := operations["get"]; !ok || path == "/openapi.json" || path == "/metrics" {
					continue
				}
				for _, member := range []string{"n1", "n3"} {
					resp := c.ask(http.MethodGet, member, path, "")
					for _, fault := range d.CheckAnswer(http.MethodGet, path, resp, c.text(resp)) {
						t.Errorf("%s, %s%s: %s", when, member, path, fault)
					}
				}
			}
		}
		everything("at the start")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		time.Sleep(5 * time.Second)
		everything("in peace")
		resp := c.ask(http.MethodPost, "n3", "/v1/switchover", `{"to": "n2"}`)
		for _, fault := range d.CheckAnswer(http.MethodPost, "/v1/switchover", resp, c.text(resp)) {
			t.Errorf("switchover: %s", fault)
		}
		if resp.StatusCode != http.StatusOK {
			t.Errorf("switchover = %s", resp.Status)
		}
		time.Sleep(5 * time.Second)
		everything("after a switchover")
		c.members["n2"].node.crash()
		time.Sleep(5 * time.Second)
		everything("after a failover")
	})
}

// A page in a browser on this machine reaches what listens on loopback, too.
func TestABrowserIsNoMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://n1:7101"+pathOrder, strings.NewReader(`{"pause": true}`))
		if err != nil {
			t.Fatal(err)
		}
		// A page whose name was bound to 127.0.0.1 after it was loaded is of the same origin.
		req.Header.Set("Origin", "http://n1:7101")
		client := http.Client{Transport: &http.Transport{DialContext: c.net.DialContext, DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("POST %s by a page = %s, want 403", pathOrder, resp.Status)
		}
	})
}
