package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/heliosdb/helios/server/api"
)

// A Sight is what one companion says of its own node.
type Sight struct {
	api.Health

	Sent, Received time.Time // by this program's clock, when it was asked and had answered
	Date           time.Time // by the companion's clock, when it answered, cut to a second
}

// Look asks the first of the companions, and only that one, how its node is.
func (c *Client) Look(ctx context.Context) (*Sight, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.options.Timeout, fmt.Errorf("no answer within %v", c.options.Timeout))
	defer cancel()
	base := c.bases[0]
	sight := &Sight{Sent: time.Now()}
	resp, err := c.health(ctx, base)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	sight.Received = time.Now()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, lost(ctx, base, err, false))
	}
	// A node that is not well is told with 503, and the same answer.
	if err := json.Unmarshal(text, &sight.Health); err != nil || sight.Node == "" {
		_, err := refusal(base, resp, text)
		return nil, err
	}
	sight.Date, _ = http.ParseTime(resp.Header.Get("Date")) // zero if there is none
	return sight, nil
}

// health asks the companion at base how its node is, whatever it answers.
func (c *Client) health(ctx context.Context, base *url.URL) (*http.Response, error) {
	req, err := c.request(ctx, base, question{method: http.MethodGet, path: "/health"}, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, base, err, false)
	}
	return resp, nil
}
