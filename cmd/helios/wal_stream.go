package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/wal"
)

// logStream is a log that a server sends over the replication protocol. It only
// looks: it confirms nothing, and what the server keeps does not depend on it.
type logStream struct {
	ctx    context.Context //nolint:containedctx // Read has none of its own
	conn   *pgconn.PgConn
	host   helios.Host
	start  wal.LSN
	at     wal.LSN // of what Read returns next
	end    wal.LSN // where to stop; 0 for never
	pieces []byte  // received and not read
}

// openStream asks the first host of cfg that answers for its log from the page on
// that from is in; if from is 0, from the beginning of the newest segment.
func openStream(ctx context.Context, cfg *helios.Config, from wal.LSN, follow bool) (*logStream, error) {
	conn, host, err := dialReplication(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &logStream{ctx: ctx, conn: conn, host: host}
	if err := s.begin(from, follow); err != nil {
		conn.Close(ctx) //nolint:errcheck // nothing was written
		return nil, err
	}
	return s, nil
}

// dialReplication connects to the first host that lets it.
func dialReplication(ctx context.Context, cfg *helios.Config) (*pgconn.PgConn, helios.Host, error) {
	var all error
	for _, host := range cfg.Hosts {
		config, err := cfg.ConnConfig(host)
		if err != nil {
			return nil, host, plain(err)
		}
		config.RuntimeParams["replication"] = "true"
		conn, err := pgconn.ConnectConfig(ctx, &config.Config)
		if err == nil {
			return conn, host, nil
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
	flushed, size, err := s.identify()
	if err != nil {
		return err
	}
	switch {
	case from > flushed && !follow:
		return fmt.Errorf("%s has flushed its log up to %s only, before %s", s.host, flushed, from)
	case from == 0:
		from = size.Start(flushed)
	}
	s.start = from.PageStart()
	s.at = s.start
	if !follow {
		s.end = flushed
	}
	s.conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + s.start.String()})
	if err := s.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		message, err := s.conn.ReceiveMessage(s.ctx)
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return failed(pgconn.ErrorResponseToPgError(m), "WAL that the server has removed may be in its archive: give the files")
		case *pgproto3.ReadyForQuery:
			return errors.New("the server does not send its log")
		}
	}
}

// identify asks how far the log is flushed, and how large its segments are.
func (s *logStream) identify() (flushed wal.LSN, size wal.SegmentSize, err error) {
	system, err := s.row("IDENTIFY_SYSTEM")
	if err != nil {
		return 0, 0, err
	}
	if len(system) < 3 || flushed.UnmarshalText(system[2]) != nil {
		return 0, 0, errors.New("the server does not say how far its log goes")
	}
	shown, err := s.row("SHOW wal_segment_size")
	if err != nil {
		return 0, 0, err
	}
	var n uint64
	var unit string
	if _, err := fmt.Sscanf(string(shown[0]), "%d%s", &n, &unit); err != nil {
		return 0, 0, fmt.Errorf("wal_segment_size is %q", shown[0])
	}
	size = wal.SegmentSize(n << 20)
	if unit == "GB" {
		size = wal.SegmentSize(n << 30)
	}
	return flushed, size, size.Check()
}

// row runs a command that returns one row.
func (s *logStream) row(command string) ([][]byte, error) {
	results, err := s.conn.Exec(s.ctx, command).ReadAll()
	switch {
	case err != nil:
		return nil, err
	case len(results) == 0 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) == 0:
		return nil, fmt.Errorf("the server has no answer to %s", command)
	}
	return results[0].Rows[0], nil
}

// Start returns where the first byte is in the log.
func (s *logStream) Start() wal.LSN { return s.start }

// Read returns what the server sends, up to the end if there is one.
func (s *logStream) Read(p []byte) (int, error) {
	for len(s.pieces) == 0 {
		if s.end != 0 && s.at >= s.end {
			return 0, io.EOF
		}
		if err := s.receive(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.pieces)
	s.pieces = s.pieces[n:]
	s.at += wal.LSN(n)
	return n, nil
}

// receive waits for one message.
func (s *logStream) receive() error {
	message, err := s.conn.ReceiveMessage(s.ctx)
	if err != nil {
		return err
	}
	switch m := message.(type) {
	case *pgproto3.CopyData:
		return s.copied(m.Data)
	case *pgproto3.ErrorResponse:
		return pgconn.ErrorResponseToPgError(m)
	case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery: // the end of a timeline, or of the server
		return io.EOF
	}
	return nil
}

// copied takes a message of the stream: XLogData or a keepalive.
func (s *logStream) copied(data []byte) error {
	const walHeader, keepalive = 25, 18
	switch {
	case len(data) >= walHeader && data[0] == 'w':
		if at := wal.LSN(binary.BigEndian.Uint64(data[1:])); at != s.at {
			return fmt.Errorf("the server sent its log from %s on where %s was next", at, s.at)
		}
		s.pieces = data[walHeader:]
	case len(data) >= keepalive && data[0] == 'k' && data[17] == 1:
		return s.reply()
	}
	return nil
}

// reply tells the server that somebody is here. It confirms no position.
func (s *logStream) reply() error {
	s.conn.Frontend().Send(&pgproto3.CopyData{Data: append([]byte{'r'}, make([]byte, 33)...)})
	return s.conn.Frontend().Flush()
}

// Close ends the connection.
func (s *logStream) Close() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	cancel()          // the server is still sending, so that there is nobody to say goodbye to
	s.conn.Close(ctx) //nolint:errcheck // nothing was written
	return nil
}
