package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
)

func numbered(term, seq uint64) func(*topology.Bulletin) {
	return func(b *topology.Bulletin) { b.Term, b.Seq, b.Hold = term, seq, !b.Hold }
}

func TestWatchYieldsBulletinsAsTheyCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, client.Options{})
		want := uint64(100)
		begun := time.Now()
		for b, err := range w.client.Watch(t.Context()) {
			if err != nil || b.Seq != want || time.Since(begun) != 0 {
				t.Fatalf("bulletin %+v, %v after %v, want %d at once", b, err, time.Since(begun), want)
			}
			if want == 105 {
				break
			}
			want++
			w.clusters[0].Publish(func(b *topology.Bulletin) { b.Hold = !b.Hold })
		}
	})
}

func TestWatchGoesOnWithTheNextCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, client.Options{})
		w.clusters[0].Publish(numbered(4, 10))
		w.clusters[1].Publish(numbered(4, 9)) // it has heard less
		var breaks int
		for b, err := range w.client.Watch(t.Context()) {
			switch {
			case err != nil:
				breaks++
				time.AfterFunc(time.Second, func() { w.clusters[1].Publish(numbered(4, 11)) })
			case b.Seq == 10 && breaks == 0:
				w.servers[0].Close()
			case b.Seq == 11 && breaks == 1:
				return
			default:
				t.Fatalf("bulletin %d after %d breaks", b.Seq, breaks)
			}
		}
	})
}

func TestWatchLeavesACompanionThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, client.Options{Heartbeat: time.Second, Timeout: time.Second})
		sample := apifake.Sample("n1").Bulletin
		w.serve(t, addrs[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(sample)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		w.connect(t, client.Options{Heartbeat: time.Second, Timeout: time.Second}, addrs[:2]...)
		w.clusters[1].Publish(numbered(4, 1))
		begun := time.Now()
		var told error
		for b, err := range w.client.Watch(t.Context()) {
			if err != nil {
				told = err
			} else if b.Term == 4 {
				break
			}
		}
		if took := time.Since(begun); told == nil || took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the next companion after %v and error %v, want it after 3 heartbeats", took, told)
		}
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, client.Options{})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute+time.Second, errEnough)
		defer cancel()
		var last error
		bulletins, breaks := 0, 0
		for b, err := range w.client.Watch(ctx) {
			if last = err; b != nil {
				bulletins++
			} else {
				breaks++
			}
		}
		if !errors.Is(last, errEnough) || bulletins != 31 || breaks != 1 {
			t.Errorf("%d bulletins and %d errors, the last %v; want one bulletin each 2s and %v", bulletins, breaks, last, errEnough)
		}
	})
}

var errEnough = errors.New("that is enough")

func TestWatchWaitsLongerAndLongerWhileAllAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, client.Options{})
		begun, tries := time.Now(), 0
		for _, err := range w.client.Watch(t.Context()) {
			if err == nil {
				t.Fatal("somebody answers")
			}
			if tries++; tries == 20 {
				break
			}
		}
		if took := time.Since(begun); took < 20*time.Second || took > time.Minute {
			t.Errorf("20 tries in %v, want about one each 2s in the end", took)
		}
	})
}

func TestWatchDoesNotInsistWhereItIsNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, client.Options{})
		w.serve(t, addrs[0], api.New(api.Config{Cluster: apifake.New("n1"), ReadToken: "another"}))
		w.connect(t, client.Options{}, addrs[0])
		tries := 0
		for _, err := range w.client.Watch(t.Context()) {
			if tries++; !errors.Is(err, &api.Error{Code: api.CodeUnauthorized}) {
				t.Errorf("Watch yields %v, want code %s", err, api.CodeUnauthorized)
			}
		}
		if tries != 1 {
			t.Errorf("%d tries, want 1", tries)
		}
	})
}
