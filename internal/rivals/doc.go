// Package rivals opens the drivers that are compared with each other, and has
// each of them do the same few things: helios, pgx under database/sql
// (pgx/stdlib), and pgx with its own pool (pgxpool), which spares what
// database/sql itself costs.
//
// # Invariants
//
//   - All are opened from one helios.Config: the same user, TLS and parameters,
//     and the same number of connections to a node.
//   - All send the same texts, and look at what comes back in the same way.
//   - pgx goes to the primary that it is told: it has no notion of a replica.
//
// It is for benchmarks and their tests.
package rivals
