package pool

import (
	"encoding/binary"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/wal"
)

// A Helper is a statement of the driver's own that travels in the same flush
// as the application's statement, so that it costs no round trip. It is
// prepared on first use in that flush as well.
type Helper uint8

const (
	// HelperNone is no helper.
	HelperNone Helper = iota
	// HelperPosition asks how much of the cluster's WAL a query on this node
	// sees. In front of a read it proves, or disproves, that the read sees a
	// write. It must take its snapshot before the read does, never after.
	//
	// A standby that has replayed no end of a transaction since it was started sees
	// nothing for sure: those which waited for synchronous standbys when the
	// snapshot that it began with was taken count as running there, until a later
	// one has ended (ProcArrayApplyRecoveryInfo in procarray.c).
	HelperPosition
	// HelperCommitted asks for the position of a commit that came before it.
	HelperCommitted
	// HelperDurability asks how the transaction that is about to commit will
	// do so. Only the transaction itself knows: SET LOCAL is gone after it.
	HelperDurability
	// HelperIdentity asks which transaction this is, on which run of which
	// server. Behind a write it is what the outcome of a lost commit can be found
	// out with.
	HelperIdentity
	// HelperSight asks how far what was read in front of it can reach. It takes no
	// look at the data: its answer is newer than any snapshot taken before it.
	HelperSight
	// HelperBegin opens a transaction.
	HelperBegin
	// HelperCommit ends it.
	HelperCommit
	// HelperRollback gives the transaction up.
	HelperRollback

	helperCount
)

// helperSQL names everything with its schema: a search_path of the application
// cannot put a function of its own in the way.
var helperSQL = [helperCount]string{
	HelperPosition: `SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery()` +
		` THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,` +
		` pg_catalog.pg_last_xact_replay_timestamp()`,
	HelperCommitted: `SELECT pg_catalog.pg_current_wal_flush_lsn(), pg_catalog.pg_current_wal_insert_lsn(),` +
		` pg_catalog.current_setting('synchronous_commit'), pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())`,
	HelperDurability: `SELECT pg_catalog.current_setting('synchronous_commit')`,
	HelperIdentity: `SELECT pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_current_wal_insert_lsn(),` +
		` pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_postmaster_start_time(),` +
		` pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())`,
	HelperSight: `SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery()` +
		` THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,` +
		` CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() END,` +
		` CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END`,
	HelperBegin:    `BEGIN`,
	HelperCommit:   `COMMIT`,
	HelperRollback: `ROLLBACK`,
}

// helpers is what a connection knows about its helpers.
type helpers struct {
	names      [helperCount]string // "" until prepared
	generation int                 // counts how often the names were forgotten
}

// binary asks for every column of a result in binary.
var binaryFormat = []int16{1}

// sendHelper adds the messages of helper h to the flush.
func (c *Conn) sendHelper(h Helper) {
	name := c.helpers.names[h]
	if name == "" {
		name = "helios_h" + strconv.Itoa(int(h)) + "_" + strconv.Itoa(c.helpers.generation)
		c.parse = pgproto3.Parse{Name: name, Query: helperSQL[h]}
		c.fe.SendParse(&c.parse)
		c.call.parsing[h] = name
	}
	c.bind = pgproto3.Bind{PreparedStatement: name, ResultFormatCodes: binaryFormat}
	c.fe.SendBind(&c.bind)
	c.execute = pgproto3.Execute{}
	c.fe.SendExecute(&c.execute)
}

// takeHelperRow keeps what a helper answered.
func (c *Conn) takeHelperRow(h Helper, row [][]byte) {
	switch h {
	case HelperPosition:
		if len(row) == 3 && len(row[0]) == 1 {
			c.call.Recovering = row[0][0] != 0
			if c.call.HasPosition = true; !c.call.Recovering || row[2] != nil {
				c.call.Position = binaryLSN(row[1])
			}
		}
	case HelperCommitted:
		if len(row) == 4 {
			c.call.committed(row)
		}
	case HelperDurability:
		c.call.relaxed = len(row) == 1 && string(row[0]) == "off"
	case HelperIdentity:
		if len(row) == 5 {
			c.call.Identity = identity(row)
		}
	case HelperSight:
		if len(row) == 4 && len(row[0]) == 1 {
			c.call.Sight = sight(row, c.call.SegmentSize)
		}
	case HelperNone, HelperBegin, HelperCommit, HelperRollback, helperCount:
	}
}

// committed reads the answer of HelperCommitted. The flush position is exact
// where the commit waited for its flush; where it did not, only the insert
// position is surely behind the commit record.
func (r *Call) committed(row [][]byte) {
	r.CommitLSN = binaryLSN(row[0])
	if r.Relaxed || r.relaxed || string(row[2]) == "off" {
		r.CommitLSN = binaryLSN(row[1]).EndOfRecord(r.SegmentSize)
	}
	r.CommitTimeline = fileTimeline(row[3])
}

// fileTimeline returns the timeline in the name of a WAL file; 0 if it has none.
func fileTimeline(name []byte) wal.Timeline {
	if len(name) < 8 {
		return 0
	}
	timeline, err := strconv.ParseUint(string(name[:8]), 16, 32)
	if err != nil {
		return 0
	}
	return wal.Timeline(timeline)
}

// A Sight says how far what a query has seen can reach. The zero Sight says
// nothing.
type Sight struct {
	At         wal.LSN      // whatever has replayed up to here shows all of it; 0 if not known
	Timeline   wal.Timeline // of At; 0 on a standby, which does not tell
	Recovering bool         // the node was in recovery
}

// sight reads the answer of HelperSight. A standby shows a commit a moment before
// it counts it as replayed (ApplyWalRecord in xlogrecovery.c). Where it has
// received more than it counts, the next record belongs to what may have been
// seen, and stands replayed from the first byte behind the last one on.
func sight(row [][]byte, segmentSize uint64) Sight {
	s := Sight{Recovering: row[0][0] != 0, At: binaryLSN(row[1])}
	if !s.Recovering {
		s.At, s.Timeline = s.At.EndOfRecord(segmentSize), fileTimeline(row[3])
	} else if s.At != 0 && binaryLSN(row[2]) > s.At {
		s.At++
	}
	return s
}

// An Identity says which transaction a write was part of. The zero Identity
// names none: nothing was written, or nobody asked.
type Identity struct {
	XID uint64       // with its epoch (xid8); 0 if the transaction has none
	At  wal.Position // at or behind WAL of the transaction, before its commit
	Run Run          // of the server
}

// A Run is the time from one start of a server, or recovery from a crash, to the
// next: what a server that answers from the same Run knew, it has not forgotten.
type Run struct {
	Recovered wal.LSN // where the last recovery ended; 0 if there was none since a clean stop
	Started   int64   // when the postmaster was started, in PostgreSQL's microseconds
}

// identity reads the answer of HelperIdentity.
func identity(row [][]byte) Identity {
	return Identity{
		XID: binaryUint64(row[0]),
		At:  wal.Position{Timeline: fileTimeline(row[4]), LSN: binaryLSN(row[1])},
		Run: Run{Recovered: binaryLSN(row[2]), Started: int64(binaryUint64(row[3]))},
	}
}

// binaryLSN reads the binary form of a pg_lsn; NULL is no position.
func binaryLSN(b []byte) wal.LSN { return wal.LSN(binaryUint64(b)) }

// binaryUint64 reads eight bytes; NULL is 0.
func binaryUint64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
