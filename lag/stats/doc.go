// Package stats keeps how far each replica has been behind: the newest lag, its
// history, which way it goes, and what it was most of the time.
//
// A [Monitor] is told, at an interval, where the primary and every replica
// stand. The lag is what a [lag.History] says of the replay position: no two
// machines' clocks are compared, a replica that is cut off grows in lag, and one
// that is idle and caught up has none.
//
// # Invariants
//
//   - A lag is never too small. If the primary has not been heard of, a replica
//     that has replayed all that is known has an unknown lag, not none.
//   - A round allocates nothing once its replicas are known, and takes some
//     microseconds for each. What costs more waits until a report is asked for.
//   - Memory is bounded for each replica, however long it runs.
//
// The companion server measures with it. The driver has its own use of [lag] and
// does not compile this package, nor the library for quantiles that it needs.
package stats
