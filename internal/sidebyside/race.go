package sidebyside

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Contestant is one way of doing the thing.
type Contestant struct {
	Name string
	// Do does it once. i counts its operations over the whole race, so that a
	// mix of several things can be the same for all. It is called by as many
	// goroutines at once as the race has clients.
	Do func(ctx context.Context, i int) error
	// Before, if not nil, is called in front of each operation, and is no part of
	// its time. It is part of the other figures.
	Before func(ctx context.Context, i int) error
}

// A Race says what is compared and how.
type Race struct {
	Contestants []Contestant  // the first is what the others are compared with
	Clients     int           // goroutines that do it at the same time
	Slice       time.Duration // how long a contestant has its turn, about
	Duration    time.Duration // of the whole race without the warm-up, about
	Latency     bool          // every operation is timed as well
	Meter       Meter         // the zero Meter reads the process's own
}

// fewest is how many slices each contestant has at least, so that there is a
// median to speak of.
const fewest = 5

// Run has the contestants do it by turns, and returns their results in the
// order of the contestants. It ends with the first error of one of them, or
// with the cause of ctx's end.
func (r *Race) Run(ctx context.Context) ([]Result, error) {
	if len(r.Contestants) == 0 || r.Clients < 1 || r.Slice <= 0 {
		return nil, errors.New("a race needs contestants, clients and a slice of time")
	}
	runners := make([]*runner, len(r.Contestants))
	results := make([]Result, len(r.Contestants))
	for i, c := range r.Contestants {
		runners[i] = &runner{Contestant: c, clients: r.Clients, latency: r.Latency, meter: r.Meter.orOwn()}
		results[i].Name = c.Name
		if err := runners[i].warmUp(ctx, r.Slice); err != nil {
			return nil, err
		}
	}
	now := runners[0].meter.Now
	for begun, round := now(), 0; round < fewest || now().Sub(begun) < r.Duration; round++ {
		for _, i := range Order(len(runners), round) {
			s, err := runners[i].slice(ctx, runners[i].perSlice)
			if err != nil {
				return nil, err
			}
			results[i].Slices = append(results[i].Slices, s)
		}
	}
	compare(results)
	return results, nil
}

// Order returns whose turn it is in a round: everybody once, each round begins
// with another one, and every other round goes backwards. So nobody always
// follows the same one, whose garbage he would have to collect.
func Order(n, round int) []int {
	turns := make([]int, n)
	for i := range turns {
		turns[i] = (i + round/2) % n
		if round%2 == 1 {
			turns[i] = (n - 1 - i + round/2) % n
		}
	}
	return turns
}

// runner takes a contestant through its slices.
type runner struct {
	Contestant
	clients  int
	latency  bool
	meter    Meter
	perSlice int     // operations
	done     int     // operations up to now
	took     []int64 // ns of each operation of the slice; empty if they are not timed
}

// warmUp has the contestant do it until it is known how many operations make a
// slice: the first ones open connections and prepare statements.
func (r *runner) warmUp(ctx context.Context, slice time.Duration) error {
	const steadyAfter = 3 // slices of about the right length
	r.perSlice = r.clients
	for steady := 0; steady < steadyAfter; {
		s, err := r.slice(ctx, r.perSlice)
		if err != nil {
			return err
		}
		if s.Wall >= slice/2 {
			steady++
		}
		growth := min(max(float64(slice)/float64(max(s.Wall, 1)), 0.1), 8)
		r.perSlice = max(int(float64(r.perSlice)*growth), r.clients)
		if r.perSlice == r.clients { // one each takes longer than a slice
			steady++
		}
	}
	return nil
}

// slice does n operations.
func (r *runner) slice(ctx context.Context, n int) (Slice, error) {
	if err := ctx.Err(); err != nil {
		return Slice{}, context.Cause(ctx)
	}
	r.took = r.took[:0]
	if r.latency {
		r.took = append(r.took, make([]int64, n)...)
	}
	objects, bytes := r.meter.Allocated()
	cpu, begun := r.meter.CPU(), r.meter.Now()
	err := r.all(ctx, n)
	s := Slice{Ops: n, Wall: r.meter.Now().Sub(begun), CPU: r.meter.CPU() - cpu}
	if err != nil {
		return Slice{}, fmt.Errorf("%s: %w", r.Name, err)
	}
	objectsAfter, bytesAfter := r.meter.Allocated()
	s.Objects, s.Bytes = objectsAfter-objects, bytesAfter-bytes
	s.P50, s.P99 = percentiles(r.took)
	r.done += n
	return s, nil
}

// all has the clients share n operations until the last one is done, or one of
// them has failed.
func (r *runner) all(ctx context.Context, n int) error {
	var next atomic.Int64
	var failure atomic.Pointer[error]
	client := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if err := r.one(ctx, i); err != nil {
				first := err // a variable whose address is taken costs an allocation
				failure.CompareAndSwap(nil, &first)
				next.Store(int64(n)) // the others need not go on
				return
			}
		}
	}
	if r.clients == 1 {
		client()
	} else {
		var clients sync.WaitGroup
		for range r.clients {
			clients.Go(client)
		}
		clients.Wait()
	}
	if err := failure.Load(); err != nil {
		return *err
	}
	return nil
}

// one does the i-th operation of the slice.
func (r *runner) one(ctx context.Context, i int) error {
	if r.Before != nil {
		if err := r.Before(ctx, r.done+i); err != nil {
			return err
		}
	}
	if len(r.took) == 0 {
		return r.Do(ctx, r.done+i)
	}
	begun := r.meter.Now()
	err := r.Do(ctx, r.done+i)
	r.took[i] = int64(r.meter.Now().Sub(begun))
	return err
}
