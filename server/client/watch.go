package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/heliosdb/helios/topology"
)

// How long Watch waits before it asks the next companion after one that said nothing.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// silentBeats is how many heartbeats a companion may leave out.
const silentBeats = 3

// Watch yields bulletins as they come, each the newest there is, and repeats, until ctx
// ends or the loop does. When a stream breaks it yields the error and, if the loop goes on,
// listens to the next companion. What a companion tells that is older than what another has
// told is left out. The last pair is the error that ended it, such as ctx's.
func (c *Client) Watch(ctx context.Context) iter.Seq2[*topology.Bulletin, error] {
	return func(yield func(*topology.Bulletin, error) bool) {
		w := watcher{client: c, yield: yield}
		pause := firstPause
		for w.listen(ctx) {
			if w.heard {
				pause = firstPause
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxPause)
		}
	}
}

// A watcher is one loop over Watch.
type watcher struct {
	client *Client
	yield  func(*topology.Bulletin, error) bool
	term   uint64 // with seq: of the newest bulletin
	seq    uint64
	heard  bool // the last stream told something
}

// listen yields what one companion tells until that breaks, and reports whether to
// listen to the next one.
func (w *watcher) listen(ctx context.Context) bool {
	c := w.client
	n := int(c.current.Load()) % len(c.bases)
	w.heard = false
	goOn, err := w.stream(ctx, c.bases[n])
	if !goOn {
		return false
	}
	if ctx.Err() != nil {
		w.yield(nil, context.Cause(ctx))
		return false
	}
	c.current.CompareAndSwap(int64(n), int64((n+1)%len(c.bases)))
	return w.yield(nil, err) && elsewhere(err)
}

// stream yields what the companion at base tells. It returns false if the loop has
// ended, else why the stream has.
func (w *watcher) stream(ctx context.Context, base *url.URL) (bool, error) {
	silence := max(silentBeats*w.client.options.Heartbeat, w.client.options.Timeout)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(silence, func() { cancel(fmt.Errorf("silent for %v", silence)) })
	defer watchdog.Stop()

	query := url.Values{"heartbeat": {w.client.options.Heartbeat.String()}}
	if often := w.client.options.Positions; often > 0 {
		query.Set("positions", often.String())
	}
	req, err := w.client.request(ctx, base, question{method: http.MethodGet, path: "/v1/watch", query: query}, nil)
	if err != nil {
		return true, err
	}
	resp, err := w.client.http.Do(req)
	if err != nil {
		return true, lost(ctx, base, err, false)
	}
	defer resp.Body.Close() //nolint:errcheck // it is given up
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // half an answer is as good as none
		_, err := refusal(base, resp, text)
		return true, err
	}
	for lines := json.NewDecoder(resp.Body); ; {
		b := new(topology.Bulletin)
		if err := lines.Decode(b); err != nil {
			return true, lost(ctx, base, err, false)
		}
		watchdog.Reset(silence)
		w.heard = true
		if b.Term < w.term || b.Term == w.term && b.Seq < w.seq {
			continue
		}
		w.term, w.seq = b.Term, b.Seq
		if !w.yield(b, nil) {
			return false, nil
		}
	}
}
