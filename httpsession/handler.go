package httpsession

import (
	"net/http"
	"time"

	"github.com/heliosdb/helios"
)

// Options say how a token travels. The zero value is a cookie called "helios".
type Options struct {
	Cookie string        // name of the cookie; "helios" if empty, "-" for none
	Header string        // name of a header that carries the token both ways; none if empty
	MaxAge time.Duration // how long a client keeps the cookie; 10 minutes if 0
	Secure bool          // send the cookie over HTTPS only
}

// What a token in a client is kept for: after this long every replica that is
// read has replayed what it stands for.
const defaultMaxAge = 10 * time.Minute

const defaultCookie = "helios"

// withDefaults returns o with its zeros filled in.
func (o Options) withDefaults() Options {
	switch o.Cookie {
	case "":
		o.Cookie = defaultCookie
	case "-":
		o.Cookie = ""
	}
	if o.MaxAge <= 0 {
		o.MaxAge = defaultMaxAge
	}
	return o
}

// Handler returns next with a helios session in the context of every request:
// the one the client brings, else a new one. Before the response's first byte
// the client is given what the session has seen. The handler is safe for
// concurrent use, as next is.
func Handler(next http.Handler, o Options) http.Handler {
	o = o.withDefaults()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session := helios.NewSession()
		brought := o.token(r)
		session.Advance(brought)
		out := &writer{ResponseWriter: w, options: o, session: session, brought: brought}
		next.ServeHTTP(out, r.WithContext(helios.WithSession(r.Context(), session)))
		out.tell() // a handler that wrote nothing has sent no headers yet
	})
}

// token returns what the client has seen. What cannot be read counts as nothing:
// the client gets a good one with the answer.
func (o Options) token(r *http.Request) helios.Token {
	if o.Header != "" {
		if t, err := helios.ParseToken(r.Header.Get(o.Header)); err == nil && !t.IsZero() {
			return t
		}
	}
	if o.Cookie != "" {
		if cookie, err := r.Cookie(o.Cookie); err == nil {
			if t, err := helios.ParseToken(cookie.Value); err == nil {
				return t
			}
		}
	}
	return helios.Token{}
}

// writer puts the token into the headers before they are sent.
type writer struct {
	http.ResponseWriter

	options Options
	session *helios.Session
	brought helios.Token
	told    bool
}

// WriteHeader implements http.ResponseWriter. Informational answers (1xx) come
// before the headers that count.
func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.tell()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(b []byte) (int, error) {
	w.tell()
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach what is underneath.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// FlushError implements what http.ResponseController looks for: flushing sends
// the headers.
func (w *writer) FlushError() error {
	w.tell()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// tell gives the client what the session has seen, if that is news.
func (w *writer) tell() {
	if w.told {
		return
	}
	w.told = true
	token := w.session.Token()
	if token.IsZero() || token == w.brought {
		return
	}
	if w.options.Header != "" {
		w.Header().Set(w.options.Header, token.String())
	}
	if w.options.Cookie != "" {
		http.SetCookie(w.ResponseWriter, &http.Cookie{
			Name: w.options.Cookie, Value: token.String(), Path: "/", MaxAge: int(w.options.MaxAge / time.Second),
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: w.options.Secure,
		})
	}
}
