// Package walfile keeps write-ahead log on disk as PostgreSQL does, in segment
// files. A [Dir] reads a directory of them: a server's own pg_wal, an archive,
// or a spool. A [Spool] is such a directory that we write, and that survives a
// crash. Both are for the companion: the driver never touches a file.
//
// # Invariants
//
//   - What a Dir returns is what was asked for: every page says of which
//     position it is, and a page that says another is not read. A server
//     renames old segments for later use, so that a file's name proves nothing.
//     Only what pg_switch_wal leaves empty says nothing; for it the segment's
//     first page speaks.
//   - What [Spool.Sync] has returned as flushed is there after a crash, and
//     nothing that was written after it: bytes that may have been torn are cut
//     off and asked for again.
//   - A segment of a spool has its final name only if it is whole and flushed,
//     so that a restore_command may copy from the directory at any time. One
//     that is not ends in .partial, as with pg_receivewal; unlike there its
//     size says how far it goes.
//   - Readers of a spool see no byte that was not written, nor the bytes of a
//     branch that was left.
//   - An operation that fails loses nothing that was flushed. The position may
//     then stand further back than before: [Spool.Position] says where to go on.
//
// WAL is in the byte order of its server; little-endian servers are understood.
package walfile
