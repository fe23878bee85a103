// Package pgctl runs one PostgreSQL server on this machine: it finds the
// programs, makes a data directory, starts, stops, crashes, freezes, promotes
// and clones it.
//
// The postmaster is a child of this process, so its end is known by waiting for
// it and never guessed from its number: kill(pid, 0) still finds a server that
// has died and has not been reaped.
//
// # Invariants
//
//   - What [Instance.Configure] was told is written again at every start, so it
//     survives whatever a clone or pg_rewind copies over it.
//   - No server runs as root: a process of root starts it as the user postgres,
//     or nobody where there is no such user.
//   - On Linux a server does not outlive the process that started it. Elsewhere
//     whoever starts one has to stop it.
//
// Nothing here decides anything: who may become primary is told by the caller.
package pgctl
