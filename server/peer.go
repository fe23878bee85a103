package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/server/api"
)

// Calls between companions.
const (
	pathReport  = "/peer/report"
	pathAssign  = "/peer/assign"
	pathSeal    = "/peer/seal"
	pathPrepare = "/peer/prepare"
	pathStop    = "/peer/stop"
	pathPromote = "/peer/promote"
	pathObserve = "/peer/observe"
	pathJoin    = "/peer/join"
	pathOrder   = "/peer/order"
	pathReinit  = "/peer/reinit"
	pathKnown   = "/peer/known"
	pathPark    = "/peer/park"
)

// maxCall bounds what one companion takes from another.
const maxCall = 4 << 20

type (
	epochCall   struct{ Epoch failover.Epoch }
	observeCall struct {
		Node                string
		Round               uint64
		Companion, Postgres string
	}
	empty struct{}
)

// Codes that companions tell each other, besides those of the API.
const (
	codeTaken     api.Code = "name_taken" // it will not go away by asking again
	codeNoMember  api.Code = "not_a_member"
	codeWrongNode api.Code = "wrong_node"
	codeWitness   api.Code = "witness"
)

// callers calls other companions.
type callers struct {
	client *http.Client
	scheme string
}

// newCallers returns callers that speak TLS if config is not nil.
func newCallers(config *tls.Config, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *callers {
	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	return &callers{scheme: scheme, client: &http.Client{Transport: &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     config,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}}}
}

// once returns callers that make a connection for each call.
func (c *callers) once() *callers {
	transport := c.client.Transport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return &callers{scheme: c.scheme, client: &http.Client{Transport: transport}}
}

func (c *callers) close() { c.client.CloseIdleConnections() }

// call sends in to a companion and reads its answer into out.
func (c *callers) call(ctx context.Context, addr, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.scheme+"://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("companion %s: %w", addr, cause)
		}
		return fmt.Errorf("companion %s: %w", addr, unwrapURL(err))
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxCall))
	if err != nil {
		return fmt.Errorf("companion %s: %w", addr, err)
	}
	if res.StatusCode != http.StatusOK {
		refusal := &api.Error{}
		if json.Unmarshal(answer, refusal) != nil || refusal.Message == "" {
			refusal.Message = fmt.Sprintf("companion %s answers %s to %s", addr, res.Status, path)
		}
		return refusal
	}
	return json.Unmarshal(answer, out)
}

// unwrapURL takes off what net/http puts around an error: the URL, which the
// caller knows.
func unwrapURL(err error) error {
	type wrapper interface{ Unwrap() error }
	if w, ok := err.(wrapper); ok {
		if inner := w.Unwrap(); inner != nil {
			return inner
		}
	}
	return err
}

// park keeps a connection to a companion open until it breaks or ctx ends.
func (c *callers) park(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.scheme+"://"+addr+pathPark, nil)
	if err != nil {
		return err
	}
	res, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // the connection is not used again
	_, err = io.Copy(io.Discard, res.Body)
	if err == nil {
		err = io.EOF
	}
	return err
}

// on makes a handler of a function.
func on[In, Out any](do func(ctx context.Context, in In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		body, err := io.ReadAll(io.LimitReader(r.Body, maxCall))
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		if err != nil {
			refuse(w, &api.Error{Code: api.CodeBadRequest, Message: "this call cannot be understood: " + err.Error()})
			return
		}
		out, err := do(r.Context(), in)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(out) //nolint:errcheck // the caller is gone
	}
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	answer, ok := errors.AsType[*api.Error](err)
	if !ok {
		answer = &api.Error{Code: api.CodeInternal, Message: err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.Status())
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // the caller is gone
}

// parked holds a connection open, so that its end tells of ours.
func parked(closing <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
		case <-closing:
		}
	}
}

// peersOnly lets members of the cluster in: who has a certificate of its
// authority, or without certificates whoever may reach the port at all.
func (s *Server) peersOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.cfg.TLS != nil && !isNode(r.TLS):
			refuse(w, &api.Error{Code: api.CodeForbidden, Message: "this call is for members of the cluster: it needs the certificate of a node", Hint: "helios cert node"})
		case s.cfg.TLS == nil && !s.cfg.Insecure && !fromLoopback(r):
			refuse(w, &api.Error{Code: api.CodeForbidden, Message: "without TLS only this machine may make this call", Hint: "give every companion a certificate: helios cert"})
		case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
			// A page that a browser on this machine shows could order a failover otherwise.
			refuse(w, &api.Error{Code: api.CodeForbidden, Message: "this call is for members of the cluster, and not for web pages"})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func isNode(state *tls.ConnectionState) bool {
	_, node := certs.Peer(state)
	return node
}

func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return !strings.Contains(r.RemoteAddr, ".") // a listener in memory
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
