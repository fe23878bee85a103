package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/heliosdb/helios/server/api"
)

// ErrAway is in the error if no companion could be reached.
var ErrAway = errors.New("no companion answers")

// ErrUnanswered is in the error of an order that a companion may have heard and has not
// answered: it may have been carried out.
var ErrUnanswered = errors.New("the order may have been carried out")

// Limits of what is read and followed.
const (
	maxAnswer = 64 << 20 // bytes
	maxHops   = 3        // from companion to leader
)

// A question is one request, for whichever companion answers it.
type question struct {
	method, path string
	query        url.Values
	body         any // nil for none
	timeout      time.Duration
}

// order reports whether it must not be heard twice.
func (q question) order() bool { return q.method != http.MethodGet }

// ask puts a question to one companion after the other and decodes the first answer
// into answer.
func (c *Client) ask(ctx context.Context, q question, answer any) error {
	var body []byte
	if q.body != nil {
		var err error
		if body, err = json.Marshal(q.body); err != nil {
			return err
		}
	}
	first := int(c.current.Load())
	var refused error // a companion's own words say more than that another is away
	var away []string
	for i := range c.bases {
		n := (first + i) % len(c.bases)
		err := c.follow(ctx, c.bases[n], q, body, answer)
		if err == nil {
			c.current.Store(int64(n))
			return nil
		}
		if !elsewhere(err) || ctx.Err() != nil {
			return err
		}
		if _, ok := errors.AsType[*api.Error](err); ok {
			refused = err
		}
		away = append(away, err.Error())
	}
	if refused != nil {
		return refused
	}
	return fmt.Errorf("%w: %s", ErrAway, strings.Join(away, "; "))
}

// elsewhere reports whether another companion may be asked after err.
func elsewhere(err error) bool {
	if told, ok := errors.AsType[*api.Error](err); ok {
		return told.Status() == http.StatusServiceUnavailable || told.Code == api.CodeNotLeader
	}
	return !errors.Is(err, ErrUnanswered)
}

// follow puts a question to the companion at base, and to the leader that it names. An
// order goes only to those that are awake: one that is frozen takes its bytes, and nobody
// could say then whether it will be carried out.
func (c *Client) follow(ctx context.Context, base *url.URL, q question, body []byte, answer any) error {
	for hop := 0; ; hop++ {
		if q.order() {
			if err := c.awake(ctx, base); err != nil {
				return err
			}
		}
		next, err := c.send(ctx, base, q, body, answer)
		if next == nil || hop == maxHops {
			return err
		}
		base = next
	}
}

// awake asks the companion at base for any answer.
func (c *Client) awake(ctx context.Context, base *url.URL) error {
	patience := min(c.options.Timeout, 2*time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %v", patience))
	defer cancel()
	resp, err := c.health(ctx, base)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// send puts a question to the companion at base. If that names the leader, send
// returns where it is, with the error to tell if it is not to be followed.
func (c *Client) send(ctx context.Context, base *url.URL, q question, body []byte, answer any) (*url.URL, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, q.timeout, fmt.Errorf("no answer within %v", q.timeout))
	defer cancel()
	connected := false
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	req, err := c.request(traced, base, q, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, base, err, connected && q.order())
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, lost(ctx, base, err, q.order())
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, answer); err != nil {
			return nil, lost(ctx, base, err, q.order())
		}
		return nil, nil //nolint:nilnil // answered: there is no next
	}
	return refusal(base, resp, text)
}

// request makes the HTTP request of a question.
func (c *Client) request(ctx context.Context, base *url.URL, q question, body []byte) (*http.Request, error) {
	u := *base
	u.Path, u.RawQuery = q.path, q.query.Encode()
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if q.order() {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.options.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.options.Token)
	}
	return req, nil
}

// lost returns what a connection that failed means.
func lost(ctx context.Context, base *url.URL, err error, sent bool) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the address is told already
	}
	if sent {
		return fmt.Errorf("%s: %w: %w", base.Host, ErrUnanswered, err)
	}
	return fmt.Errorf("%s: %w", base.Host, err)
}

// refusal returns what an answer other than 200 means, and where the leader is if it
// says so. Only the address is taken from there: the scheme stays.
func refusal(base *url.URL, resp *http.Response, text []byte) (*url.URL, error) {
	var told api.Error
	leader := ""
	if json.Unmarshal(text, &told) == nil && told.Code != "" {
		leader = told.Leader
	} else {
		told = api.Error{
			Code: api.CodeInternal, Message: fmt.Sprintf("%s: %s instead of an answer", base.Host, resp.Status),
			Hint: "is that the address of a companion?",
		}
	}
	if code := resp.StatusCode; code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect {
		if to, err := resp.Location(); err == nil && to.Scheme == base.Scheme {
			leader = to.Host
		}
	}
	if leader == "" || leader == base.Host {
		return nil, &told
	}
	return &url.URL{Scheme: base.Scheme, Host: leader}, &told
}
