// Package pgtest starts whole PostgreSQL clusters, a primary and its replicas,
// in a second or two, and does to them what happens to clusters: crashes,
// hangs, promotions, lag, cut connections.
//
// A test calls [New] and is done:
//
//	c := pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true})
//	db, err := sql.Open("helios", c.DSN())
//	…
//	pgtest.OK(t, c.Kill(c.Primary()))
//	pgtest.OK(t, c.Promote(t.Context(), c.Nodes[1]))
//
// A program calls [Start] and [Cluster.Close]; nothing then needs a testing.T.
//
// # Where servers come from
//
// $HELIOS_TEST_POSTGRES says: "local" are the programs of this machine (see
// internal/pgctl), "docker" is whatever provider was registered under that name
// (import internal/pgtest/container), "auto", the default, is local if there is
// one and else docker.
//
// With $HELIOS_TEST_TLS=1 every cluster of the process is one of [Options] TLS:
// its servers show certificates of an authority made for the process, and take
// nobody who does not come by TLS and SCRAM-SHA-256. DSNs say all that is needed.
// What knows no more of a cluster than its DSNs, and makes users by
// [Cluster.CreateUser], runs either way.
//
// # Invariants
//
//   - Data is worth nothing: it may live in memory ($TMPDIR, if set, is where it
//     lives instead), fsync is off, and Close kills.
//   - Close leaves no process, goroutine or file behind; if this process dies
//     before, the kernel and a waiting shell remove them (on Linux; elsewhere
//     servers end within a minute of losing their files).
//   - Clusters share nothing but the files that initdb made once: tests run in
//     parallel.
package pgtest
