// Package wal holds the words of PostgreSQL's write-ahead log: positions in it
// ([LSN]), the timelines it may run on ([Timeline], [History]), its segments and
// pages ([SegmentSize], [PageHeader]), its records ([Record], [Entry]), and their
// text forms. It imports the standard library only, so that driver and server can
// both speak it, and opens nothing: a [Decoder] is fed, a [Reader] reads what it
// is given.
//
// # Invariants
//
//   - An [LSN] alone orders positions on one timeline only. Whatever crosses a
//     failover is compared as a [Position], through a [History].
//   - Parsing refuses what PostgreSQL would not print.
//   - A [Record] that a Decoder returns has passed its checksum and follows the one
//     before it. Its manager, lengths, transaction, blocks and the name of its
//     operation are what the pg_waldump of its server prints: PostgreSQL 13 to 18,
//     told apart by the magic number of the pages.
//   - The same bytes give the same records and the same error however they are cut.
//   - Damage is a [*CorruptError], an unknown version a [*VersionError], and a place
//     where nothing has been written yet an [*EndError]. Nothing that is fed makes a
//     Decoder panic, or hold more than a small multiple of what it was fed of one
//     record.
//   - What a Decoder returns is its own until its next call; [Entry.Clone] is for
//     keeping. It allocates nothing for a record.
//
// Two things cannot be told from the log alone: a page whose beginning was written
// and whose end was not looks as the end of the log does, and so does an old
// record that stands where the next one would and whose checksum fits. PostgreSQL
// ends its recovery at both.
//
// Pages of 8 kB in the byte order of little-endian machines are understood, as
// every distribution builds PostgreSQL on such machines.
package wal
