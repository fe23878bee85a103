// Package pgctl runs one PostgreSQL server on this machine: it finds the
// programs, makes a data directory, starts, stops, crashes, freezes, promotes
// and clones it. Tests and demos make servers that are worth nothing; a
// companion looks after one that outlives it (Config.Detached), which it may not
// have started ([Instance.Adopt]).
//
// The end of the postmaster is known from the kernel and never guessed from its
// number: kill(pid, 0) still finds a server that has died and has not been
// reaped, and may find another process.
//
// # Invariants
//
//   - What [Instance.Configure] was told is written again at every start, so it
//     survives whatever a clone or pg_rewind copies over it.
//   - No server runs as root: a process of root starts it as the user postgres,
//     or nobody where there is no such user.
//   - On Linux a server that is not detached does not outlive the process that
//     started it. Elsewhere whoever starts one has to stop it.
//   - A process is signalled only if it is surely of the server in the directory.
//   - ALTER SYSTEM is never used: what is set stands in a file of ours that is
//     included last.
//
// Nothing here decides anything: who may become primary is told by the caller.
package pgctl
