// Package replication speaks PostgreSQL's streaming replication protocol, both
// ends of it: a [Client] is what a walreceiver is, a [Session] what a walsender
// is. It moves messages and decides nothing: which WAL is sent, and what an
// acknowledgement is worth, is for its callers.
//
// The protocol is described in "Streaming Replication Protocol" of
// PostgreSQL's documentation; walsender.c, walreceiver.c and repl_gram.y say
// what it leaves open.
//
// # Invariants
//
//   - A length that the other end tells is not believed: memory grows with what
//     has arrived, and no further than a limit.
//   - WAL is not copied: [Client.Read] reads into the caller's memory, and
//     [Session.Write] writes from it. Neither allocates.
//   - Reading is for one goroutine. Writing is for any, in whole messages.
//   - A wait that a read deadline ends loses no byte, but for a message that is
//     larger than 4 KiB and no WAL. What ends a wait in any other way ends the
//     connection.
//   - An idle session keeps less than 16 KiB, without TLS.
//   - Whether a user exists does not show in a login that fails.
package replication
