// Package pool holds the physical connections to one node: a [Pool] lends them,
// a [Conn] speaks the protocol, a [Breaker] remembers whether the node answers.
//
// # Invariants
//
//   - A connection has one holder at a time: the session that acquired it, or a
//     goroutine of the pool that cleans or closes it. Only Abort is for anyone.
//   - A connection is lent only if nothing of its last user is left on it.
//   - While somebody waits, no connection is idle, and who waits longest is
//     served first.
//   - A connection made before a Fence is never lent after it.
//   - Whatever Acquire fails with, nothing was sent.
//
// # Who may call what
//
// Every method of [Pool] and [Breaker] is safe for concurrent use. Sessions call
// Acquire and one of Release, ReleaseDirty and Discard; whoever watches the
// cluster calls Fence, Warm and Probe.
package pool
