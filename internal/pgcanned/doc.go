// Package pgcanned is a PostgreSQL cluster that costs next to nothing, so that
// a benchmark on it measures the driver and nothing else.
//
// A connection to one of its nodes is a value in memory: Write parses what the
// driver sends and prepares the answer at once, in the caller's goroutine, and
// Read hands it out. There is no kernel, no server process, no goroutine and no
// time in between. Any driver that takes a dial function can be measured on it:
// helios, pgx by itself, pgx under database/sql, and pgxpool.
//
// It knows the statements of the benchmarks (internal/rivals) and what drivers
// ask for themselves. A SELECT is a list of expressions, each of which is looked
// up in one table, see values.go; one that is not there fails with an error that
// names it. Whatever the parameters, the row is [ID] and [Name]. For everything
// else there is internal/pgfake, which keeps state, time and failures in order.
//
// # Invariants
//
//   - Once a statement was prepared, answering it allocates nothing.
//   - A Read that has nothing to hand out waits until there is something, or
//     until Close or the deadline, as a socket does.
//   - A commit that wrote something moves the cluster's position forward.
//     Replicas have replayed all of it at once, unless [Node.HoldReplay] says
//     otherwise.
//
// Everything exported is safe for concurrent use.
package pgcanned
