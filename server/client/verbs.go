package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/wal/relay"
)

// get asks for what is at path.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (*T, error) {
	answer := new(T)
	err := c.ask(ctx, question{method: http.MethodGet, path: path, query: query, timeout: c.options.Timeout}, answer)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Cluster returns what the cluster is like.
func (c *Client) Cluster(ctx context.Context) (*api.Overview, error) {
	return get[api.Overview](ctx, c, "/v1/cluster", nil)
}

// Lag returns how far the nodes are behind, as the companion measured it.
func (c *Client) Lag(ctx context.Context) (json.RawMessage, error) {
	raw, err := get[json.RawMessage](ctx, c, "/v1/lag", nil)
	if err != nil {
		return nil, err
	}
	return *raw, nil
}

// History returns the last transitions, at most limit of them if that is not 0, newest
// last.
func (c *Client) History(ctx context.Context, limit int) (*api.History, error) {
	query := url.Values{}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return get[api.History](ctx, c, "/v1/history", query)
}

// WAL returns what the relay of the companion that answers does. With several addresses
// that is any of them.
func (c *Client) WAL(ctx context.Context) (*relay.Status, error) {
	return get[relay.Status](ctx, c, "/v1/wal", nil)
}

// Settings returns the settings of the cluster.
func (c *Client) Settings(ctx context.Context) (*api.Settings, error) {
	return get[api.Settings](ctx, c, "/v1/settings", nil)
}

// order has something done.
func (c *Client) order(ctx context.Context, method, path string, body any) (*api.Done, error) {
	done := new(api.Done)
	if err := c.ask(ctx, question{method: method, path: path, body: body, timeout: c.options.OrderTimeout}, done); err != nil {
		return nil, err
	}
	return done, nil
}

func (c *Client) post(ctx context.Context, verb string, body any) (*api.Done, error) {
	return c.order(ctx, http.MethodPost, "/v1/"+verb, body)
}

// Switchover has a node take over in good order; "" lets the leader choose.
func (c *Client) Switchover(ctx context.Context, to string) (*api.Done, error) {
	return c.post(ctx, "switchover", api.Switchover{To: to})
}

// Failover has a node take over without the primary's help.
func (c *Client) Failover(ctx context.Context, f api.Failover) (*api.Done, error) {
	return c.post(ctx, "failover", f)
}

// Promote makes a node the primary: by a switchover if there is a primary, else by a
// failover.
func (c *Client) Promote(ctx context.Context, node string) (*api.Done, error) {
	return c.post(ctx, "promote", api.Target{Node: node})
}

// Pause has nothing done without an operator.
func (c *Client) Pause(ctx context.Context) (*api.Done, error) {
	return c.post(ctx, "pause", struct{}{})
}

// Resume ends a pause.
func (c *Client) Resume(ctx context.Context) (*api.Done, error) {
	return c.post(ctx, "resume", struct{}{})
}

// Maintenance takes a node out of elections and of what commits wait for, or puts it
// back.
func (c *Client) Maintenance(ctx context.Context, node string, on bool) (*api.Done, error) {
	return c.post(ctx, "maintenance", api.Maintenance{Node: node, On: on})
}

// Reinit has the data directory of a node made anew from the primary's.
func (c *Client) Reinit(ctx context.Context, node string) (*api.Done, error) {
	return c.post(ctx, "reinit", api.Target{Node: node})
}

// ChangeSettings changes those settings that the patch has.
func (c *Client) ChangeSettings(ctx context.Context, p api.SettingsPatch) (*api.Done, error) {
	return c.order(ctx, http.MethodPatch, "/v1/settings", p)
}

// Remove takes a node out of the cluster.
func (c *Client) Remove(ctx context.Context, node string) (*api.Done, error) {
	return c.order(ctx, http.MethodDelete, "/v1/nodes/"+node, nil)
}
