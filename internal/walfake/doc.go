// Package walfake writes a write-ahead log as PostgreSQL lays it out, for tests of
// what reads one: any record of any version, whole or damaged, without a server.
//
// # Invariants
//
//   - pg_waldump of the version takes the log for one of its own server.
//   - Nothing of package wal is used but its words, so that an error there does
//     not hide behind the same one here.
package walfake
