package watch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/heliosdb/helios/topology"
)

// What a zero field of a [Listener] means.
const (
	DefaultHeartbeat = 500 * time.Millisecond
	DefaultPositions = 100 * time.Millisecond
)

// A companion that has said nothing for silentBeats heartbeats is left for the
// next one. When none has been heard for awayBeats, they are away.
const (
	silentBeats = 2.5
	awayBeats   = 4
)

// Between rounds in which no companion was of use there are pauses.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// Limits on what a companion, or whoever answers in its stead, can have us keep.
const (
	maxHead = 64 << 10 // of an answer's header
	maxLine = 4 << 20  // of a bulletin: room for some thousand nodes
)

// A Listener listens to the bulletins of companion servers: to one at a time, and
// at once to the next when that breaks or falls silent. Set its fields before
// Run and do not change them after. Status is safe for concurrent use, and Run
// is called once.
type Listener struct {
	Companions []string      // host:port; asked in turn, from a random one on
	Heartbeat  time.Duration // how often a companion is to be heard at least
	Positions  time.Duration // how often it tells of positions that have moved

	// Connect makes a connection to a companion, TLS included, and gives up when
	// ctx ends. The listener owns the connection.
	Connect func(ctx context.Context, companion string) (net.Conn, error)
	// Token returns what the companion is to know us by, "" for nothing. It is
	// asked for each connection; nil is a Token that has none.
	Token func(companion string) (string, error)
	// Heard is called with each bulletin that is no older than those before, and
	// the time it arrived. It owns the bulletin. Calls do not overlap, with those of
	// Away neither.
	Heard func(b *topology.Bulletin, at time.Time)
	// Away is called when no companion has been heard for a while: once, until one
	// is heard again.
	Away func()

	Log *slog.Logger // nil for silence

	telling sync.Mutex // held during Heard and Away
	mu      sync.Mutex
	status  ListenerStatus // guarded by mu
	term    uint64         // guarded by mu; with seq and epoch: of the newest bulletin
	seq     uint64         // guarded by mu
	epoch   uint64         // guarded by mu
}

// ListenerStatus says how a [Listener] fares.
type ListenerStatus struct {
	Companion string    // whose stream is open; "" for nobody's
	Name      string    // who told the newest bulletin
	HeardAt   time.Time // when the newest bulletin arrived; zero if none has
	Away      bool      // no companion has been heard for a while
	Bulletins uint64    // bulletins that were no older than those before
	Stale     uint64    // bulletins that were
	Err       error     // why the last stream ended, or did not begin; nil while one is open
}

// Status returns how the listener fares at this moment.
func (l *Listener) Status() ListenerStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Run listens until ctx ends, and returns the cause of that end. Everything it
// started has ended when it returns.
func (l *Listener) Run(ctx context.Context) error {
	heard := make(chan struct{}, 1)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { l.notice(ctx, heard) })
	first, useless := rand.IntN(len(l.Companions)), 0
	for i := first; ctx.Err() == nil; i++ {
		begun := time.Now()
		err := l.listen(ctx, l.Companions[i%len(l.Companions)], heard)
		if ctx.Err() != nil {
			break
		}
		l.note(ctx, l.Companions[i%len(l.Companions)], err)
		if l.Status().HeardAt.Sub(begun) >= l.heartbeat() { // it was of use for a while
			useless = 0
			continue
		}
		if useless++; useless%len(l.Companions) == 0 {
			rest(ctx, pauseAfter(useless/len(l.Companions)))
		}
	}
	return context.Cause(ctx)
}

// pauseAfter returns how long to pause after so many useless rounds: longer and
// longer, and not in step with others.
func pauseAfter(rounds int) time.Duration {
	pause := min(firstPause<<min(rounds-1, 10), maxPause)
	return time.Duration((0.5 + rand.Float64()) * float64(pause))
}

// rest waits until d has passed or ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l *Listener) heartbeat() time.Duration { return orDefault(l.Heartbeat, DefaultHeartbeat) }

// silence is for how long a companion may say nothing.
func (l *Listener) silence() time.Duration {
	return time.Duration(silentBeats * float64(l.heartbeat()))
}

func (l *Listener) log() *slog.Logger {
	if l.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Log
}

// note keeps, and logs once, why a stream ended.
func (l *Listener) note(ctx context.Context, companion string, err error) {
	l.mu.Lock()
	was := l.status
	l.status.Companion, l.status.Err = "", err
	l.mu.Unlock()
	level := slog.LevelDebug
	if was.Companion != "" || was.Err == nil {
		level = slog.LevelWarn
	}
	l.log().Log(ctx, level, "companion is not heard", "companion", companion, "error", err)
}

// notice tells when no companion has been heard for a while. heard is sent to
// with each bulletin.
func (l *Listener) notice(ctx context.Context, heard <-chan struct{}) {
	limit := awayBeats * l.heartbeat()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-heard:
			timer.Reset(limit)
		case <-timer.C:
			l.leave(limit)
		case <-ctx.Done():
			return
		}
	}
}

// leave calls Away, unless something was heard after all.
func (l *Listener) leave(limit time.Duration) {
	l.telling.Lock()
	defer l.telling.Unlock()
	l.mu.Lock()
	if time.Since(l.status.HeardAt) < limit || l.status.Away {
		l.mu.Unlock()
		return
	}
	l.status.Away = true
	l.mu.Unlock()
	l.log().Warn("companions are away: nodes are watched by probes alone")
	if l.Away != nil {
		l.Away()
	}
}

// listen reads the stream of one companion until it ends, and returns why.
func (l *Listener) listen(ctx context.Context, companion string, heard chan<- struct{}) error {
	limited, cancel := context.WithTimeoutCause(ctx, l.silence(), fmt.Errorf("no answer within %v", l.silence()))
	defer cancel()
	conn, err := l.Connect(limited, companion)
	if err != nil {
		return cause(limited, err)
	}
	defer conn.Close() //nolint:errcheck // it is given up
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // it is closed to end a read or write
	})
	defer stop()
	conn.SetDeadline(time.Now().Add(l.silence())) //nolint:errcheck // the read fails instead
	lines, err := l.ask(ctx, conn, companion)
	if err != nil {
		return err
	}
	for lines.Scan() {
		ok, err := l.take(lines.Bytes(), companion)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		conn.SetReadDeadline(time.Now().Add(l.silence())) //nolint:errcheck // the read fails instead
	}
	return l.why(lines)
}

// cause returns why ctx ended if that is what err is about, else err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return brief(err)
}

// why says why a stream ended.
func (l *Listener) why(s *stream) error {
	if errors.Is(s.from.err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("nothing new for %v", l.silence())
	}
	return s.from.blame(s.Err())
}

// ask asks for the stream and returns its lines. HTTP is spoken over a connection
// of our own: a transport would leave goroutines behind for a moment.
func (l *Listener) ask(ctx context.Context, conn net.Conn, companion string) (*stream, error) {
	query := url.Values{
		"heartbeat": {l.heartbeat().String()},
		"positions": {orDefault(l.Positions, DefaultPositions).String()},
	}
	where := url.URL{Scheme: "http", Host: companion, Path: "/v1/watch", RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/x-ndjson")
	request.Header.Set("User-Agent", "helios-driver")
	if l.Token != nil {
		token, err := l.Token(companion)
		if err != nil {
			return nil, err
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
	}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	from := &source{conn: conn}
	head := &io.LimitedReader{R: from, N: maxHead}
	answer, err := http.ReadResponse(bufio.NewReader(head), request) //nolint:bodyclose // closing it would read it to its end
	switch {
	case err != nil && from.err == nil && head.N <= 0:
		return nil, fmt.Errorf("odd answer: its header is longer than %d bytes", maxHead)
	case err != nil:
		return nil, from.blame(err)
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("answered %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	head.N = math.MaxInt64
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 0, 16<<10), maxLine)
	lines.Split(wholeLines)
	return &stream{lines, from}, nil
}

// wholeLines is bufio.ScanLines but for what follows the last newline: what was
// cut off is no line.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if !slices.Contains(data, '\n') {
		return 0, nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}

// A stream is what a companion writes.
type stream struct {
	*bufio.Scanner
	from *source
}

// A source is a connection that remembers why it could not be read any more.
// Whatever else goes wrong is for what the other side wrote, which is not
// repeated in any text: it may be what we sent, a token included.
type source struct {
	conn net.Conn
	err  error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.conn.Read(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

// blame says what is wrong, once err has ended the reading.
func (s *source) blame(err error) error {
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("odd answer: a line is longer than %d bytes", maxLine)
	case s.err == nil && err != nil:
		return errors.New("odd answer: it is not HTTP")
	case s.err == nil, errors.Is(s.err, io.EOF):
		return errors.New("the stream has ended")
	default:
		return brief(s.err)
	}
}

// take reads one line and tells of it, unless it is older than what was heard
// before. It reports whether the line is a sign of life: one that repeats what
// was told long ago comes from a companion that hears nothing itself.
func (l *Listener) take(line []byte, companion string) (bool, error) {
	if len(line) == 0 {
		return false, nil
	}
	b, at := new(topology.Bulletin), time.Now()
	if err := json.Unmarshal(line, b); err != nil {
		return false, errors.New("odd answer: a line is no bulletin")
	}
	l.telling.Lock()
	defer l.telling.Unlock()
	if !l.accept(b, companion, at) {
		return false, nil
	}
	l.Heard(b, at)
	return true, nil
}

// accept reports whether b is to be told of, and notes that it is.
func (l *Listener) accept(b *topology.Bulletin, companion string, at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	older := b.Term < l.term || b.Term == l.term && b.Seq < l.seq || b.Epoch < l.epoch
	repeated := b.Term == l.term && b.Seq == l.seq && l.seq != 0
	if older || repeated && youngest(b) > l.silence() {
		l.status.Stale++
		return false
	}
	if l.status.Companion == "" || l.status.Away {
		l.log().Info("companion is heard", "companion", companion, "name", b.Companion, "epoch", b.Epoch)
	}
	l.term, l.seq, l.epoch = b.Term, b.Seq, b.Epoch
	l.status.Companion, l.status.Name, l.status.HeardAt, l.status.Err = companion, b.Companion, at, nil
	l.status.Away = false
	l.status.Bulletins++
	return true
}

// youngest returns the age of the newest word in b; 0 if it speaks of no node.
func youngest(b *topology.Bulletin) time.Duration {
	if len(b.Nodes) == 0 {
		return 0
	}
	age := b.Nodes[0].Age
	for i := range b.Nodes {
		age = min(age, b.Nodes[i].Age)
	}
	return age
}
