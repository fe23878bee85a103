// Package helios is a database/sql driver that knows a whole PostgreSQL
// cluster.
//
//	db, err := sql.Open("helios", "helios://app@db1,db2,db3/shop")
//
// Statements that change something run on the primary, reads on the replicas,
// decided for each statement by what it is. A session reads its own writes on
// whichever node it reads. When the primary changes, the driver follows.
//
// # How it works
//
// What database/sql calls a connection is a session here ([Conn]): it borrows a
// physical connection for each statement. The [Cluster] behind a *sql.DB keeps a
// pool of them for each node, watches the nodes, and publishes what they are as
// an immutable view that the query path reads without locks. decide, in
// place.go, is the one function that chooses a node.
//
// # Invariants
//
//   - One call is executed at most once. What may have been executed is not sent
//     again: it is found out what became of it, or the error is [ErrOutcomeUnknown].
//   - A read of a session never misses a write of that session, unless the DSN or
//     the caller asks for less than consistency=session.
//   - A node of an older timeline than the newest known takes no writes.
//   - Errors of PostgreSQL come back bare, as *pgconn.PgError.
//   - When [Cluster.Close] returns, no goroutine and no socket of the cluster is
//     left.
//
// Contexts carry what a program wants of a statement: [Primary], [Replica],
// [Node], [WithSession], [WithSessionID], [WithConsistency].
package helios
