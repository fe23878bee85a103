// Package wal holds the words of PostgreSQL's write-ahead log: positions in it
// ([LSN]), the timelines it may run on ([Timeline], [History]), and their text
// forms. It imports the standard library only, so that driver and server can
// both speak it.
//
// # Invariants
//
//   - An [LSN] alone orders positions on one timeline only. Whatever crosses a
//     failover is compared as a [Position], through a [History].
//   - Parsing refuses what PostgreSQL would not print.
package wal
