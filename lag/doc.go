// Package lag decides how old the data is that a replica shows.
//
// It never compares the clocks of two machines. One observer notes where the
// primary stood, by its own clock, in a [History]; a replica's replay position
// is then looked up there. So a replica that is cut off grows in lag, and one
// that is idle and has replayed everything has none, which neither
// "received minus replayed" nor the age of the last transaction can say.
//
// # Invariants
//
//   - Nothing here does I/O, starts a goroutine or reads a clock: the time is
//     an argument.
//   - Every answer errs on the safe side: a lag is never too small, and a
//     position that must have been replayed is never too low. Forgetting
//     samples makes answers coarser, never wrong.
package lag
