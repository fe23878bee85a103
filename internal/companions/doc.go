// Package companions runs whole clusters on this machine, each node a companion
// and the PostgreSQL server that it looks after, and breaks them: for tests and
// the demo.
//
// Every companion is a process of its own, so that it can be killed and frozen as
// a machine would be. Nothing here decides anything: what happens after a fault is
// the companions' doing.
package companions
