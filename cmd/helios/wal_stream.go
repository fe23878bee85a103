package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// logStream is a log that a server sends over the replication protocol. It only
// looks: it confirms nothing, and what the server keeps does not depend on it.
type logStream struct {
	ctx    context.Context //nolint:containedctx // Read has none of its own
	client *replication.Client
	stop   func() bool // ends the watch over ctx
	host   helios.Host
	start  wal.LSN
	at     wal.LSN // of what Read returns next
	end    wal.LSN // where to stop; 0 for never
	left   int     // bytes of the message that Read is in
}

// openStream asks the first host of cfg that answers for its log from the page on
// that from is in; if from is 0, from the beginning of the newest segment.
func openStream(ctx context.Context, cfg *helios.Config, from wal.LSN, follow bool) (*logStream, error) {
	client, host, err := dialReplication(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &logStream{ctx: ctx, client: client, host: host}
	if err := s.begin(from, follow); err != nil {
		client.Close() //nolint:errcheck // nothing was written
		return nil, err
	}
	s.stop = context.AfterFunc(ctx, func() { client.Close() }) //nolint:errcheck // it ends the read
	return s, nil
}

// dialReplication connects to the first host that lets it.
func dialReplication(ctx context.Context, cfg *helios.Config) (*replication.Client, helios.Host, error) {
	var all error
	for _, host := range cfg.Hosts {
		config, err := cfg.ConnConfig(host)
		if err != nil {
			return nil, host, plain(err)
		}
		client, err := replication.Connect(ctx, &config.Config)
		if err == nil {
			return client, host, nil
		}
		all = errors.Join(all, err)
	}
	hint := "helios ping tells what the nodes of the DSN are"
	if _, refused := errors.AsType[*pgconn.PgError](all); refused {
		hint = "the role needs REPLICATION, and pg_hba.conf a line for the database replication"
	}
	return nil, helios.Host{}, failed(all, hint)
}

// begin finds out where the log is and has it sent.
func (s *logStream) begin(from wal.LSN, follow bool) error {
	id, err := s.client.Identify(s.ctx)
	if err != nil {
		return err
	}
	size := wal.SegmentSize(id.SegmentSize) //nolint:gosec // what is negative is refused
	if err := size.Check(); err != nil {
		return err
	}
	switch {
	case from > id.Flush && !follow:
		return fmt.Errorf("%s has flushed its log up to %s only, before %s", s.host, id.Flush, from)
	case from == 0:
		from = size.Start(id.Flush)
	}
	s.start = from.PageStart()
	s.at = s.start
	if !follow {
		s.end = id.Flush
	}
	started, _, err := s.client.Start(s.ctx, "", s.start, 0, "")
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return failed(pgErr, "WAL that the server has removed may be in its archive: give the files")
	}
	if err == nil && !started {
		err = errors.New("the server does not send its log")
	}
	return err
}

// Start returns where the first byte is in the log.
func (s *logStream) Start() wal.LSN { return s.start }

// Read returns what the server sends, up to the end if there is one.
func (s *logStream) Read(p []byte) (int, error) {
	for s.left == 0 {
		if s.end != 0 && s.at >= s.end {
			return 0, io.EOF
		}
		if err := s.receive(); err != nil {
			return 0, s.why(err)
		}
	}
	n, err := s.client.Read(p[:min(len(p), s.left)])
	s.left -= n
	s.at += wal.LSN(n) //nolint:gosec // positive
	return n, s.why(err)
}

// why returns the end of the context where that is what ended the read.
func (s *logStream) why(err error) error {
	if err != nil && s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	return err
}

// receive waits for one message.
func (s *logStream) receive() error {
	e, err := s.client.Next()
	if err != nil {
		return err
	}
	switch e.Kind {
	case replication.KindEnd: // of a timeline
		return io.EOF
	case replication.KindData:
		if e.Start != s.at {
			return fmt.Errorf("the server sent its log from %s on where %s was next", e.Start, s.at)
		}
		s.left = e.Size
	case replication.KindKeepalive:
		if e.Reply { // somebody is here, and confirms no position
			return s.client.SendStatus(replication.Status{SentAt: time.Now()})
		}
	}
	return nil
}

// Close ends the connection.
func (s *logStream) Close() error {
	s.stop()
	s.client.Close() //nolint:errcheck // nothing was written
	return nil
}
