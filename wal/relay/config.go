package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A Config says what a [Relay] is to do. Times and sizes that are zero have the
// values of DefaultConfig.
type Config struct {
	// Name is what the relay is called at its source (application_name): what
	// synchronous_standby_names there has to list.
	Name string
	// Source is where WAL comes from: the first that can be used, see
	// ParseSource. SetSource changes it later.
	Source []*pgconn.Config
	// SourceLater allows that there is none until SetSource names one, and that
	// WALDir is made later too. Whoever calls SetSource knows who the primary is: the
	// relay does not look for another one while it follows the first that was named.
	SourceLater bool

	BufferSize  int64 // wal_buffer_size: bytes of WAL in memory
	BatchSize   int   // wal_batch_size: most bytes of WAL in one frame to another relay
	Compression bool  // enable_compression: ask a source that is a relay for LZ4, which it uses where it pays

	// WALDir is the pg_wal directory of a PostgreSQL server on this machine that
	// is fed by the relay, or feeds it; empty if there is none. WAL that is older
	// than the buffer is read there.
	WALDir string
	// WALOwner is what the server of WALDir is called as a subscriber. It is not
	// served from its own files: what it asks for in spite of them it cannot use as it
	// is there.
	WALOwner string
	// SpoolDir is where the relay keeps WAL itself, up to Keep bytes; empty if
	// it does not.
	SpoolDir string
	Keep     int64 // wal_keep

	// Acknowledge is what the source is told.
	Acknowledge Policy
	// Gate, if set, has the last word on what the source is told. It is asked right
	// before each status update, must be quick, and holds back what it likes. Of
	// a source that flushes before it sends, as PostgreSQL does, it may confirm
	// what has arrived: a commit then waits for the gate and for nobody's disk.
	// Release has it asked again.
	Gate func(Question) Confirmation
	// Slot is a physical replication slot at the source that holds WAL for the
	// relay's subscribers; empty if there is none. It is made if it is missing, never
	// streamed from, and moved by what the subscribers have flushed.
	Slot string
	// SlotLimit is how many bytes of WAL Slot holds back at most, whoever needs
	// them.
	SlotLimit int64

	// TLS is spoken with subscribers that ask for it; nil if it is not spoken.
	// With client certificates that TLS verifies, a certificate whose common
	// name is the user is as good as a password.
	TLS *tls.Config
	// RequireTLS refuses who does not.
	RequireTLS bool
	// Users may subscribe, with their passwords. If there are none, anybody on
	// this machine may (trust), and nobody else.
	Users map[string]replication.Verifier
	// TrustAll lets in anybody from other machines too where there are no Users and no
	// certificates: whoever reaches the relay can read all that is in the database.
	TrustAll bool

	SenderTimeout time.Duration // a subscriber that is silent for so long is disconnected (wal_sender_timeout)
	SourceTimeout time.Duration // a source that is silent for so long is left
	// LagProbe is how often a subscriber that has not applied everything is asked
	// how far it is; negative for never.
	LagProbe time.Duration
	// ShutdownGrace is how long the source's shutdown waits for
	// acknowledgements that the policy withholds. Then the relay leaves, and
	// the source is free to stop.
	ShutdownGrace time.Duration
	// OrphanTimeout is how long subscribers are kept while there is no source.
	// Then they are turned away, so that a standby whose primary_conninfo names
	// the primary behind the relay goes there.
	OrphanTimeout time.Duration

	Log *slog.Logger // nil for slog.Default
}

// A Question is what Config.Gate answers: what may the source be told?
type Question struct {
	Source    string       // host and port of who is told, as in Status
	Timeline  wal.Timeline // of what has arrived
	Head      wal.LSN      // where that ends
	Confirmed Confirmation // what Acknowledge allows
}

// DefaultConfig returns what is used where nothing is said.
func DefaultConfig() Config {
	return Config{
		Name: "helios_relay", BufferSize: DefaultBufferSize, BatchSize: 64 << 10, Compression: true, Keep: 16 << 30, SlotLimit: 32 << 30,
		SenderTimeout: time.Minute, SourceTimeout: 5 * time.Second, LagProbe: 20 * time.Millisecond,
		ShutdownGrace: 5 * time.Second, OrphanTimeout: 30 * time.Second,
	}
}

// withDefaults fills in what is not said.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	fill(&c.Name, d.Name)
	fill(&c.BufferSize, d.BufferSize)
	fill(&c.BatchSize, d.BatchSize)
	fill(&c.Keep, d.Keep)
	fill(&c.SlotLimit, d.SlotLimit)
	fill(&c.SenderTimeout, d.SenderTimeout)
	fill(&c.SourceTimeout, d.SourceTimeout)
	fill(&c.LagProbe, d.LagProbe)
	fill(&c.ShutdownGrace, d.ShutdownGrace)
	fill(&c.OrphanTimeout, d.OrphanTimeout)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check returns what cannot be done.
func (c Config) check() error {
	switch {
	case len(c.Source) == 0 && !c.SourceLater:
		return errors.New("relay: no source: say where the WAL is to come from")
	case c.BatchSize < pageSize || c.BatchSize > maxFrame:
		return fmt.Errorf("relay: wal_batch_size is %d bytes, and must be from %d to %d", c.BatchSize, pageSize, maxFrame)
	case min(c.SenderTimeout, c.SourceTimeout, c.OrphanTimeout) < time.Millisecond || c.ShutdownGrace < 0:
		return errors.New("relay: a timeout is negative, or shorter than a millisecond")
	case c.Keep < 0 || c.SlotLimit < 0:
		return errors.New("relay: wal_keep or the slot's limit is negative")
	case c.Acknowledge.Mode == ConfirmQuorum && c.Acknowledge.K < 1:
		return errors.New("relay: acknowledge: a quorum is 1 or more")
	case c.Slot != "" && !slotName.MatchString(c.Slot):
		return fmt.Errorf("relay: slot: %q is not the name of a slot: want small letters, digits and underscores, 63 at most", c.Slot)
	case c.RequireTLS && c.TLS == nil:
		return errors.New("relay: TLS is required of subscribers, and there is no certificate to speak it with")
	}
	return nil
}

// ParseSource reads a connection string of PostgreSQL's, a URL or key = value,
// that may name several hosts. Each is a candidate: the relay takes the one on
// the highest timeline, of those the primary, of those the first. It connects as
// a walreceiver does: the user needs the REPLICATION attribute, and the database
// does not matter.
func ParseSource(conninfo string) ([]*pgconn.Config, error) {
	parsed, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, errors.New("relay: source: " + withoutConninfo(err))
	}
	return splitHosts(parsed), nil
}

// withoutConninfo returns what a connection string was refused for. Pgconn says
// so behind the string itself, in which it does not find every password.
func withoutConninfo(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		text = text[i+len("`: "):]
	}
	return text
}

// splitHosts makes of a configuration with several hosts one for each. What one
// host is tried with one after the other, such as with TLS and without, stays
// together.
func splitHosts(all *pgconn.Config) []*pgconn.Config {
	attempts := append([]*pgconn.FallbackConfig{{Host: all.Host, Port: all.Port, TLSConfig: all.TLSConfig}}, all.Fallbacks...)
	var hosts []*pgconn.Config
	for _, a := range attempts {
		i := slices.IndexFunc(hosts, func(h *pgconn.Config) bool { return h.Host == a.Host && h.Port == a.Port })
		if i >= 0 {
			hosts[i].Fallbacks = append(hosts[i].Fallbacks, a)
			continue
		}
		one := all.Copy()
		one.Host, one.Port, one.TLSConfig, one.Fallbacks = a.Host, a.Port, a.TLSConfig, nil
		one.ValidateConnect = nil // the relay judges for itself
		hosts = append(hosts, one)
	}
	return hosts
}

// Address is how Status and a Question name a source.
func Address(cfg *pgconn.Config) string { return addr(cfg) }

// addr names a candidate: nothing but host and port, since the rest may hold a
// password.
func addr(cfg *pgconn.Config) string {
	if strings.HasPrefix(cfg.Host, "/") {
		return cfg.Host + ":" + strconv.Itoa(int(cfg.Port))
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
}
