// Package replication speaks PostgreSQL's streaming replication protocol, both
// ends of it: a [Client] is what a walreceiver is, a [Session] what a walsender
// is. It moves messages and decides nothing: which WAL is sent, and what an
// acknowledgement is worth, is for its callers.
//
// The protocol is described in "Streaming Replication Protocol" of
// PostgreSQL's documentation; walsender.c, walreceiver.c and repl_gram.y say
// what it leaves open.
package replication
