package helios

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/topology"
)

// TestACompanionIsConnectedToAsTheDSNSays goes over real sockets: nodes are not
// needed for it.
func TestACompanionIsConnectedToAsTheDSNSays(t *testing.T) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	write(t, token, "open-sesame\n")
	secure := listenOn(t, httptest.NewUnstartedServer(http.HandlerFunc(oneBulletin)), true)
	plain := listenOn(t, httptest.NewUnstartedServer(http.HandlerFunc(oneBulletin)), false)
	root := filepath.Join(dir, "ca.crt")
	write(t, root, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})))
	for name, tt := range map[string]struct{ params, want string }{
		"in plain text":                    {"sslmode=disable&companion=" + addrOf(plain), ""},
		"in plain text after TLS failed":   {"companion=" + addrOf(plain), ""},
		"as nodes are":                     {"sslmode=verify-ca&sslrootcert=" + root + "&companion=" + addrOf(secure), ""},
		"not as nodes are":                 {"sslmode=disable&companion_sslmode=require&companion=" + addrOf(secure), ""},
		"verified where a root is given":   {"sslmode=disable&companion_sslrootcert=" + root + "&companion=" + addrOf(secure), ""},
		"never in plain text if verified":  {"companion_sslrootcert=" + root + "&companion=" + addrOf(plain), "TLS: "},
		"by nobody else's certificate":     {"companion_sslmode=verify-full&companion=" + addrOf(secure), "TLS: "},
		"in plain text where there is TLS": {"sslmode=disable&companion=" + addrOf(secure), "answered 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			awaitCompanion(t, "helios://127.0.0.1:1/?companion_token_file="+token+"&"+tt.params, func(st *CompanionStatus) bool {
				if st.Heard && tt.want != "" {
					t.Fatalf("got %+v, want no bulletin and a reason with %q", st, tt.want)
				}
				return st.Heard && st.Name == "open-sesame" && st.Epoch == 3 || tt.want != "" && strings.Contains(st.Reason, tt.want)
			})
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listenOn(t *testing.T, s *httptest.Server, secure bool) *httptest.Server {
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	if secure {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func addrOf(s *httptest.Server) string { return s.Listener.Addr().String() }

// oneBulletin tells the token that it was given.
func oneBulletin(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	line, err := json.Marshal(topology.Bulletin{Term: 1, Seq: 1, Epoch: 3, Companion: token})
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(w, "%s\n", line)
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// awaitCompanion opens a cluster and waits until its companions are as they
// should be: on a busy machine a connection may time out first.
func awaitCompanion(t *testing.T, dsn string, ok func(*CompanionStatus) bool) {
	t.Helper()
	cfg, err := ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	connector, err := NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer connector.Close()
	if _, err := connector.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for st := connector.Cluster().Status().Companion; !ok(st); st = connector.Cluster().Status().Companion {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("after a minute the companion is %+v", st)
		}
	}
}

func TestATokenIsNotSentInPlainTextToAnotherMachine(t *testing.T) {
	for params, want := range map[string]string{
		"companion=db1:7101":                                          "companion_token_file: the token would go to db1:7101 in plain text: set companion_sslmode to require or more",
		"companion=db1:7101&companion_sslmode=prefer":                 "in plain text",
		"companion=db1:7101&companion_sslmode=require":                "",
		"companion=127.0.0.1:7101,localhost:7102&sslmode=disable":     "",
		"companion=127.0.0.1:7101,db1:7101&companion_sslmode=disable": "to db1:7101 in plain text",
	} {
		cfg, err := ParseDSN("helios://db1/?companion_token_file=/nowhere&" + params)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewConnector(cfg)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("NewConnector(%s) = %v, want %q", params, err, want)
		}
	}
}

func TestATokenIsOneWord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	c := &Cluster{config: &Config{CompanionTokenFile: file}}
	if _, err := c.companionToken(""); err == nil {
		t.Error("a file that is not there gave a token")
	}
	for text, want := range map[string]string{"a.b-c\n": "a.b-c", "": "", "a b": "", "a\r\nX-Admin: yes": "", "ä": ""} {
		write(t, file, text)
		got, err := c.companionToken("")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("of %q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestCompanionsOfTheHosts(t *testing.T) {
	for params, want := range map[string][]string{
		"":                                 nil,
		"companion=auto":                   {"[::1]:7101", "db1:7101", "db2:7101"},
		"companion=:9":                     {"[::1]:9", "db1:9", "db2:9"},
		"companion=db1:7101,auto":          {"[::1]:7101", "db1:7101", "db2:7101"},
		"companion=w:1,db1:2":              {"db1:2", "w:1"},
		"companion=auto&host=/tmp,/run":    {"localhost:7101"},
		"companion=auto&host=h,h&port=1,2": {"h:7101"},
	} {
		cfg, err := ParseDSN("helios://db1,db2,[::1]/?" + params)
		if strings.Contains(params, "host=") {
			cfg, err = ParseDSN("helios:///?" + params)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.companions(); !slices.Equal(got, want) {
			t.Errorf("%s means %q, want %q", params, got, want)
		}
	}
}
