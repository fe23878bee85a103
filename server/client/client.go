package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Options say how companions are reached. The zero value is plain HTTP without a token.
type Options struct {
	Token   string        // bearer token; "" for none
	TLS     *tls.Config   // how addresses without a scheme are reached by TLS; nil: in plain text
	Timeout time.Duration // how long one companion may take to answer a question; 5 s if 0

	// OrderTimeout is how long an order may take; 90 s if 0. That is longer than a
	// companion takes to say that it was not done in time.
	OrderTimeout time.Duration
	// Heartbeat is how often the watch stream is to be heard at least; 2 s if 0. A
	// companion that is silent for three times that is left.
	Heartbeat time.Duration
	// Positions is how often the watch stream tells of positions alone, at most; 0 for what
	// companions do by themselves.
	Positions time.Duration
	// Dial connects to an address, for tests and tunnels; a net.Dialer if nil.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// withDefaults returns o with its zeros filled in.
func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.OrderTimeout <= 0 {
		o.OrderTimeout = 90 * time.Second
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 2 * time.Second
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	}
	return o
}

// A Client asks the companions of one cluster. It is safe for concurrent use.
type Client struct {
	options Options
	http    *http.Client
	bases   []*url.URL   // where companions are
	current atomic.Int64 // the one in bases that answered last
}

// New returns a client of the companions at addrs: host:port, or http:// or https://
// in front of it. Nothing is connected yet.
func New(addrs []string, o Options) (*Client, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no address of a companion")
	}
	c := &Client{options: o.withDefaults()}
	for _, addr := range addrs {
		base, err := baseOf(addr, o.TLS != nil)
		if err != nil {
			return nil, err
		}
		c.bases = append(c.bases, base)
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: c.options.Dial, TLSClientConfig: o.TLS.Clone(), ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: 3 * time.Second, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 2,
		},
		// The token goes where the companion says that the leader is, and nowhere else:
		// redirects are followed by send.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// baseOf returns where the API of the companion at addr is.
func baseOf(addr string, secure bool) (*url.URL, error) {
	text := addr
	if !strings.Contains(text, "://") {
		text = map[bool]string{false: "http://", true: "https://"}[secure] + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Port() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is not the address of a companion: write host:port", addr)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }
