package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A session is one subscriber's connection. Two goroutines belong to it while
// it streams: one sends, one listens.
type session struct {
	r    *Relay
	conn *replication.Session
	sub  *Subscriber

	poke chan struct{} // holds one: the sender is to look
	pong atomic.Bool   // the subscriber wants a keepalive at once
	dead atomic.Pointer[replication.Error]
}

// serve accepts subscribers until ctx ends.
func (r *Relay) serve(ctx context.Context, l net.Listener) error {
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close() //nolint:errcheck // came too late
			}
			return nil
		case err == nil:
			r.serving.Go(func() { r.session(ctx, conn) })
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("relay: %w", err)
		default:
			// Out of file descriptors, most likely: those who are connected go on.
			r.log.ErrorContext(ctx, "cannot accept", "addr", l.Addr(), "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// session serves one connection to its end.
func (r *Relay) session(ctx context.Context, conn net.Conn) {
	defer conn.Close()                                        //nolint:errcheck // over
	stop := context.AfterFunc(ctx, func() { r.hangUp(conn) }) // during startup; later farewell does it with an error
	makeImpatient(conn)
	accepted, err := r.server.Accept(ctx, conn)
	stop()
	if err != nil {
		r.refusedConnection(ctx, conn, err)
		return
	}
	name := accepted.ApplicationName
	if name == "" {
		name = "walreceiver"
	}
	s := &session{r: r, conn: accepted, poke: make(chan struct{}, 1)}
	if !r.enter(s) {
		accepted.Fatal(errShutdown) //nolint:errcheck // leaving anyway
		return
	}
	s.sub = r.replicator.Register(name, accepted.RemoteAddr)
	defer r.leave(s)
	err = s.commands(ctx)
	if why := s.dead.Load(); why != nil {
		accepted.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) //nolint:errcheck // then it is not told
		accepted.Fatal(why)                                               //nolint:errcheck // see above
		linger(conn)
		err = why
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.log.InfoContext(ctx, "a subscriber left", "name", name, "from", accepted.RemoteAddr, "error", err)
	}
}

// refusedConnection logs why somebody was not let in: loudly if it is a matter of
// who may.
func (r *Relay) refusedConnection(ctx context.Context, conn net.Conn, err error) {
	level := slog.LevelDebug
	if e, ok := errors.AsType[*replication.Error](err); ok && strings.HasPrefix(e.Code, "28") {
		level = slog.LevelWarn
	}
	r.log.Log(ctx, level, "a connection was refused", "from", conn.RemoteAddr().String(), "error", err)
}

// linger waits until the other side has closed the connection, for a moment.
func linger(conn net.Conn) {
	if err := conn.SetReadDeadline(time.Now().Add(lingerWait)); err == nil {
		io.Copy(io.Discard, conn) //nolint:errcheck // whatever it is, it is over
	}
}

// hangUp ends a connection that has not been accepted yet.
func (r *Relay) hangUp(conn net.Conn) { conn.SetDeadline(time.Now()) } //nolint:errcheck // closed already

// enter adds s to the sessions, unless the relay is leaving.
func (r *Relay) enter(s *session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.sessions[s] = struct{}{}
	return true
}

func (r *Relay) leave(s *session) {
	r.mu.Lock()
	delete(r.sessions, s)
	r.mu.Unlock()
	r.slots.leave(s.conn.PID)
	r.replicator.Deregister(s.sub)
}

// kill ends the session from outside; its subscriber is told why if it listens.
func (s *session) kill(why *replication.Error) {
	if !s.dead.CompareAndSwap(nil, why) {
		return
	}
	s.conn.SetReadDeadline(time.Now())  //nolint:errcheck // closed already
	s.conn.SetWriteDeadline(time.Now()) //nolint:errcheck // closed already
	s.wake()
}

// wake has the sender look.
func (s *session) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// commands answers what the subscriber asks until it leaves.
func (s *session) commands(ctx context.Context) error {
	for {
		command, err := s.conn.ReadCommand()
		if err != nil {
			return err
		}
		err = s.execute(ctx, command)
		if refused, ok := errors.AsType[*replication.Error](err); ok && s.dead.Load() == nil {
			err = s.conn.Fail(refused)
		}
		if err != nil {
			return err
		}
	}
}

// execute runs one command. A *replication.Error is the subscriber's; any other
// ends the session.
func (s *session) execute(ctx context.Context, command replication.Command) error {
	b := s.r.branch.Load()
	switch c := command.(type) {
	case replication.IdentifySystem:
		return s.identify(b)
	case replication.Show:
		return s.show(b, c.Name)
	case replication.TimelineHistory:
		return s.history(b, c.Timeline)
	case replication.CreateSlot:
		return s.createSlot(c)
	case replication.ReadSlot:
		return s.readSlot(b, c.Name)
	case replication.DropSlot:
		return s.dropSlot(c.Name)
	case replication.StartReplication:
		return s.start(ctx, c)
	case replication.BaseBackup:
		return &replication.Error{
			Code: "0A000", Message: "a relay has WAL and no data: it cannot make a base backup",
			Hint: "Run pg_basebackup against the PostgreSQL server behind it, " + s.r.source.Load().addr + "; -X stream may then stream from here.",
		}
	default:
		return &replication.Error{
			Code: "0A000", Message: "cannot execute SQL commands in WAL sender for physical replication",
			Hint: "This is a WAL relay. PostgreSQL itself is at " + s.r.source.Load().addr + ".",
		}
	}
}

func (s *session) identify(b *branch) error {
	timeline := replication.TypeInt8
	if b.identity.Version < 160000 {
		timeline = replication.TypeInt4
	}
	return s.conn.Result("IDENTIFY_SYSTEM", []replication.Column{
		{Name: "systemid", OID: replication.TypeText}, {Name: "timeline", OID: timeline}, {Name: "xlogpos", OID: replication.TypeText}, {Name: "dbname", OID: replication.TypeText},
	}, [][]byte{[]byte(b.identity.System), []byte(b.timeline().String()), []byte(s.r.buffer.Head().String()), nil})
}

func (s *session) show(b *branch, name string) error {
	value, ok := b.setting(name)
	if name == StatusParameter {
		status, err := json.Marshal(s.r.Status())
		if err != nil {
			return err
		}
		value, ok = string(status), true
	}
	if !ok {
		return &replication.Error{Code: "42704", Message: fmt.Sprintf("unrecognized configuration parameter %q", name)}
	}
	return s.conn.Result("SHOW", []replication.Column{{Name: name, OID: replication.TypeText}}, [][]byte{[]byte(value)})
}

// StatusParameter is what to SHOW on a replication connection to a relay for its
// [Status], as JSON.
const StatusParameter = "helios_status"

// setting returns what SHOW tells.
func (b *branch) setting(name string) (string, bool) {
	switch name {
	case "wal_segment_size":
		if size := b.identity.SegmentSize; size >= 1<<30 {
			return strconv.FormatInt(size>>30, 10) + "GB", true
		}
		return strconv.FormatInt(b.identity.SegmentSize>>20, 10) + "MB", true
	case "data_directory_mode":
		return "0700", true
	case "transaction_read_only", "default_transaction_read_only":
		return "off", true // as on the primary, for target_session_attrs
	case "server_version_num":
		return strconv.Itoa(b.identity.Version), true
	}
	value, ok := b.parameters()[name]
	return value, ok
}

// parameters returns what a session is told when it begins.
func (b *branch) parameters() map[string]string {
	of := make(map[string]string, len(b.identity.Parameters)+2)
	for name, value := range b.identity.Parameters {
		switch name {
		case "application_name", "session_authorization", "is_superuser": // of the relay's own session
		default:
			of[name] = value
		}
	}
	of["in_hot_standby"], of["default_transaction_read_only"] = "off", "off"
	of[frameParameter] = frameVersion
	return of
}

func (s *session) history(b *branch, t wal.Timeline) error {
	name := t.HistoryFile()
	file, ok := b.files[t]
	if !ok {
		return &replication.Error{Code: "58P01", Message: fmt.Sprintf("could not open file %q: No such file or directory", "pg_wal/"+name)}
	}
	return s.conn.Result("TIMELINE_HISTORY", []replication.Column{
		{Name: "filename", OID: replication.TypeText}, {Name: "content", OID: replication.TypeBytea},
	}, [][]byte{[]byte(name), file})
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

func (s *session) createSlot(c replication.CreateSlot) error {
	switch {
	case c.Logical:
		return &replication.Error{
			Code: "0A000", Message: "a relay has no logical replication slots",
			Hint: "Logical replication needs the PostgreSQL server behind it, " + s.r.source.Load().addr + ".",
		}
	case !slotName.MatchString(c.Name):
		return badSlotName(c.Name)
	}
	restart := wal.LSN(0)
	if c.Reserve {
		restart = s.r.buffer.Head()
	}
	made, err := s.r.slots.create(c.Name, restart, c.Temporary, s.conn.PID)
	switch {
	case err != nil:
		return &replication.Error{Code: "58030", Message: fmt.Sprintf("replication slot %q was not saved: %v", c.Name, err)}
	case !made:
		return &replication.Error{Code: "42710", Message: fmt.Sprintf("replication slot %q already exists", c.Name)}
	}
	return s.conn.Result("CREATE_REPLICATION_SLOT", []replication.Column{
		{Name: "slot_name", OID: replication.TypeText},
		{Name: "consistent_point", OID: replication.TypeText},
		{Name: "snapshot_name", OID: replication.TypeText},
		{Name: "output_plugin", OID: replication.TypeText},
	}, [][]byte{[]byte(c.Name), []byte("0/0"), nil, nil})
}

func (s *session) readSlot(b *branch, name string) error {
	row := [][]byte{nil, nil, nil}
	if restart, ok := s.r.slots.read(name); ok {
		row[0] = []byte("physical")
		if restart != 0 {
			row[1], row[2] = []byte(restart.String()), []byte(b.at(restart).String())
		}
	}
	return s.conn.Result("READ_REPLICATION_SLOT", []replication.Column{
		{Name: "slot_type", OID: replication.TypeText}, {Name: "restart_lsn", OID: replication.TypeText}, {Name: "restart_tli", OID: replication.TypeInt8},
	}, row)
}

func (s *session) dropSlot(name string) error {
	found, owner, err := s.r.slots.drop(name, s.conn.PID)
	switch {
	case err != nil:
		return &replication.Error{Code: "58030", Message: fmt.Sprintf("that replication slot %q is gone was not saved: %v", name, err)}
	case !found:
		return noSlot(name)
	case owner != 0:
		return slotInUse(name, owner)
	}
	return s.conn.Complete("DROP_REPLICATION_SLOT")
}

func badSlotName(name string) error {
	return &replication.Error{
		Code: "42602", Message: fmt.Sprintf("replication slot name %q contains invalid character", name),
		Hint: "Replication slot names may only contain lower case letters, numbers, and the underscore character.",
	}
}

func noSlot(name string) error {
	return &replication.Error{Code: "42704", Message: fmt.Sprintf("replication slot %q does not exist", name)}
}

func slotInUse(name string, owner uint32) error {
	return &replication.Error{Code: "55006", Message: fmt.Sprintf("replication slot %q is active for PID %d", name, owner)}
}

// at returns the timeline that wrote the byte at at.
func (b *branch) at(at wal.LSN) wal.Timeline {
	for _, s := range b.spans {
		if at < s.end {
			return s.timeline
		}
	}
	return b.timeline()
}

// start is START_REPLICATION.
func (s *session) start(ctx context.Context, c replication.StartReplication) error {
	st, err := s.prepare(ctx, c)
	if err != nil {
		return err
	}
	defer s.sub.end()
	if next := st.next(s.r.branch.Load()); next.Timeline != 0 && c.At >= next.LSN {
		return s.conn.NextTimeline(next) // nothing to stream: no need for a copy
	}
	if err := st.run(ctx); err != nil {
		return err
	}
	return s.relax()
}

// relax takes away the deadlines of a stream: between two of them a subscriber
// may be silent for as long as it likes.
func (s *session) relax() error {
	err := errors.Join(s.conn.SetReadDeadline(time.Time{}), s.conn.SetWriteDeadline(time.Time{}))
	if why := s.dead.Load(); why != nil { // kill came first, and its deadlines count
		return why
	}
	return err
}

// prepare checks what is asked for, as StartReplication in walsender.c does.
func (s *session) prepare(ctx context.Context, c replication.StartReplication) (*stream, error) {
	if c.Logical {
		return nil, s.createSlot(replication.CreateSlot{Logical: true})
	}
	b := s.r.branch.Load()
	t := c.Timeline
	if t == 0 {
		t = b.timeline()
	}
	span, ok := b.span(t)
	switch {
	case !ok:
		return nil, &replication.Error{Code: "XX000", Message: fmt.Sprintf("requested timeline %s is not in this server's history", t)}
	case c.At > span.end:
		return nil, &replication.Error{
			Code: "XX000", Message: fmt.Sprintf("requested starting point %s on timeline %s is not in this server's history", c.At, t),
			Detail: fmt.Sprintf("This server's history forked from timeline %s at %s.", t, span.end),
		}
	}
	if c.Slot != "" && !slotName.MatchString(c.Slot) {
		return nil, badSlotName(c.Slot)
	}
	st := &stream{s: s, r: s.r, t: t, generation: b.generation, slot: c.Slot, size: maxMessage}
	if version, ok := c.Options[frameOption]; ok {
		if version != frameVersion {
			return nil, &replication.Error{
				Code: "0A000", Message: fmt.Sprintf("frames of version %q are not spoken here", version),
				Hint: "This relay speaks version " + frameVersion + ". Bring both to one version of helios.",
			}
		}
		st.frames, st.lz4, st.size = true, c.Options[lz4Option] == "1", s.r.cfg.BatchSize
	}
	if err := s.awaitHead(ctx, c.At); err != nil {
		return nil, err
	}
	if c.Slot != "" {
		if owner := s.r.slots.take(c.Slot, s.conn.PID); owner != 0 {
			return nil, slotInUse(c.Slot, owner)
		}
	}
	s.sub.begin(t, c.At)
	st.reader = s.r.buffer.Reader(c.At)
	return st, nil
}

// headWait is how long a subscriber that is ahead waits for the relay, which may
// just have been restarted.
const headWait = 2 * time.Second

// awaitHead waits until the relay has got to at.
func (s *session) awaitHead(ctx context.Context, at wal.LSN) error {
	wait := time.NewTimer(headWait)
	defer wait.Stop()
	for {
		changed := s.r.buffer.Changed()
		if s.r.buffer.Head() >= at {
			return nil
		}
		select {
		case <-changed:
		case <-wait.C:
			return &replication.Error{
				Code: "55000", Message: fmt.Sprintf("requested starting point %s is ahead of the WAL flush position of this server %s", at, s.r.buffer.Head()),
			}
		case <-ctx.Done():
			return errShutdown
		}
	}
}
