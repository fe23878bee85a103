package httpsession_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/httpsession"
)

// writes is a handler during which the session of the request comes to see t.
func writes(t *testing.T, seen helios.Token, answer func(http.ResponseWriter)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, ok := helios.SessionOf(r.Context())
		if !ok {
			t.Fatal("SessionOf(request) = none, want the client's session")
		}
		session.Advance(seen)
		answer(w)
	})
}

var (
	older = helios.Token{SystemID: 7, Timeline: 1, LSN: 0x1000}
	newer = helios.Token{SystemID: 7, Timeline: 1, LSN: 0x2000}
)

func TestTheClientCarriesWhatItsSessionHasSeen(t *testing.T) {
	for name, tt := range map[string]struct {
		options httpsession.Options
		bring   func(*http.Request)
		seen    helios.Token
		cookie  string
		header  string
	}{
		"a write is put into the cookie": {seen: newer, cookie: "7.1.0-2000"},
		"nothing seen, nothing sent":     {},
		"what the client has is not sent again": {
			bring: func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "helios", Value: newer.String()}) },
			seen:  older,
		},
		"a later write replaces what the client has": {
			bring:  func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "helios", Value: older.String()}) },
			seen:   newer,
			cookie: "7.1.0-2000",
		},
		"a cookie that cannot be read is replaced": {
			bring:  func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "helios", Value: "garbage"}) },
			seen:   newer,
			cookie: "7.1.0-2000",
		},
		"a header between services": {
			options: httpsession.Options{Cookie: "-", Header: "Helios-Token"},
			bring:   func(r *http.Request) { r.Header.Set("Helios-Token", older.String()) },
			seen:    newer,
			header:  "7.1.0-2000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(http.MethodGet, "/", nil)
			if tt.bring != nil {
				tt.bring(request)
			}
			response := httptest.NewRecorder()
			handler := writes(t, tt.seen, func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) })
			httpsession.Handler(handler, tt.options).ServeHTTP(response, request)
			result := response.Result()
			defer result.Body.Close()
			var cookie string
			for _, c := range result.Cookies() {
				cookie = c.Value
			}
			if cookie != tt.cookie {
				t.Errorf("cookie = %q, want %q", cookie, tt.cookie)
			}
			if got := result.Header.Get("Helios-Token"); got != tt.header {
				t.Errorf("header = %q, want %q", got, tt.header)
			}
		})
	}
}

func TestTheTokenIsSentBeforeTheFirstByte(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"by a write":          func(w http.ResponseWriter) { w.Write([]byte("x")) },
		"by a flush":          func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
		"by silence":          func(http.ResponseWriter) {},
		"after early hints":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints); w.WriteHeader(http.StatusOK) },
		"once, by two writes": func(w http.ResponseWriter) { w.Write([]byte("x")); w.Write([]byte("y")) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(httpsession.Handler(writes(t, newer, answer), httpsession.Options{}))
			defer server.Close()
			result, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer result.Body.Close()
			if cookies := result.Cookies(); len(cookies) != 1 || cookies[0].Value != newer.String() {
				t.Errorf("cookies = %v, want %s", cookies, newer)
			}
		})
	}
}
