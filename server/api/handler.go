package api

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is what a Handler is made of. Cluster is wanted, and everything else has a
// default.
type Config struct {
	Cluster Cluster

	// Token is the bearer token that orders need; "" for none. ClientCerts says that the
	// server verifies client certificates: one of them does as well. Without either, orders
	// are taken from this machine only.
	Token       string
	ClientCerts bool
	// ReadToken is the bearer token that questions need, health aside; "" lets everybody ask.
	// Token and certificates do as well.
	ReadToken string

	// LagThreshold is how far a replica may lag, if it is known how far, when a load
	// balancer does not say; 0 for as far as it likes.
	LagThreshold time.Duration

	Metrics      *Metrics      // what the companion counts besides; a new one if nil
	Log          *slog.Logger  // silent if nil
	OrderTimeout time.Duration // after which an order is told as not done in time; 1 minute if 0
	WriteTimeout time.Duration // after which a listener that reads nothing is left; 10 s if 0
	MaxListeners int           // of the watch stream; 4096 if 0
}

// withDefaults returns c with its zeros filled in.
func (c Config) withDefaults() Config {
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OrderTimeout <= 0 {
		c.OrderTimeout = time.Minute
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = 10 * time.Second
	}
	if c.MaxListeners <= 0 {
		c.MaxListeners = 4096
	}
	return c
}

// A Handler serves the API of one companion. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	mux     http.ServeMux
	guard   guard
	lines   encoder
	scraped http.Handler

	closing   chan struct{} // closed by Close
	closeOnce sync.Once

	listeners counter
}

// New returns the API of a cluster.
func New(cfg Config) *Handler {
	cfg = cfg.withDefaults()
	h := &Handler{cfg: cfg, closing: make(chan struct{}), guard: newGuard(cfg), listeners: counter{limit: int64(cfg.MaxListeners)}}
	h.scraped = h.metricsHandler()
	for path, methods := range resources(routes()) {
		h.mux.Handle(path, resource{handler: h, methods: methods})
	}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.tell(w, r, &Error{Code: CodeNotFound, Message: "there is nothing at " + r.URL.Path, Hint: "/openapi.json describes what there is"})
	})
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Close ends the streams and refuses new ones; other requests are served as before. It
// waits for nothing: http.Server.Shutdown does, and Close belongs into its
// RegisterOnShutdown.
func (h *Handler) Close() { h.closeOnce.Do(func() { close(h.closing) }) }

// Access says who may use a route.
type access uint8

const (
	anybody access = iota // health, and what is no secret
	readers
	operators
)

// A route is one method of one path.
type route struct {
	method, path string
	access       access
	probe        bool // a load balancer asks: OPTIONS is answered like GET
	serve        func(h *Handler, w http.ResponseWriter, r *http.Request) error
}

// routes are all there are.
func routes() []route {
	get := func(path string, serve func(*Handler, http.ResponseWriter, *http.Request) error) route {
		return route{method: http.MethodGet, path: path, access: readers, serve: serve}
	}
	all := []route{
		get("/v1/cluster", (*Handler).cluster),
		get("/v1/watch", (*Handler).watch),
		get("/v1/lag", (*Handler).lag),
		get("/v1/history", (*Handler).history),
		get("/v1/wal", (*Handler).wal),
		get("/v1/settings", (*Handler).settings),
		get("/metrics", (*Handler).metrics),
		{method: http.MethodGet, path: "/openapi.json", access: anybody, serve: (*Handler).openapi},
	}
	return append(append(all, orders()...), probes()...)
}

// resources returns the routes by path and method.
func resources(routes []route) map[string]map[string]route {
	byPath := map[string]map[string]route{}
	for _, r := range routes {
		if byPath[r.path] == nil {
			byPath[r.path] = map[string]route{}
		}
		byPath[r.path][r.method] = r
	}
	return byPath
}

// A resource is everything at one path.
type resource struct {
	handler *Handler
	methods map[string]route
}

// ServeHTTP implements http.Handler.
func (o resource) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	get, readable := o.methods[http.MethodGet]
	if method == http.MethodHead || method == http.MethodOptions && readable && get.probe {
		method = http.MethodGet // net/http leaves out the body of HEAD, and answer that of OPTIONS
	}
	route, ok := o.methods[method]
	switch {
	case ok:
	case method == http.MethodOptions:
		w.Header().Set("Allow", o.allow())
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		w.Header().Set("Allow", o.allow())
		o.handler.tell(w, r, &Error{Code: CodeBadMethod, Message: fmt.Sprintf("%s is not for %s", r.URL.Path, r.Method), Hint: "it is for " + o.allow()})
		return
	}
	err := o.handler.guard.admit(r, route.access)
	if err == nil {
		err = route.serve(o.handler, w, r)
	}
	if err != nil {
		o.handler.tell(w, r, err)
	}
}

// allow lists the methods, as the header of that name does.
func (o resource) allow() string {
	methods := slices.Collect(maps.Keys(o.methods))
	if _, ok := o.methods[http.MethodGet]; ok {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return strings.Join(append(methods, http.MethodOptions), ", ")
}

// tell answers with an error.
func (h *Handler) tell(w http.ResponseWriter, r *http.Request, err error) {
	told := toldAs(err)
	if told.Code == CodeUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="helios"`)
	}
	if told.Code == CodeInternal {
		h.cfg.Log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	answer(w, r, told.Status(), told)
}

// toldAs returns err as a client is told it.
func toldAs(err error) *Error {
	if told, ok := errors.AsType[*Error](err); ok {
		return told
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Code: CodeTimeout, Message: err.Error(), Hint: "it may be done yet: look at /v1/cluster before it is ordered again"}
	}
	return &Error{Code: CodeInternal, Message: err.Error()}
}

// digest is what tokens are compared by: all of one length, so that the time it takes
// tells nothing.
func digest(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }
