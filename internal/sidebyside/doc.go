// Package sidebyside measures several ways of doing the same thing next to each
// other, on a machine that has other things to do as well.
//
// A [Race] cuts the time into slices of some milliseconds and gives them to the
// contestants by turns, in an order that rotates. What disturbs the machine for
// longer than a slice then disturbs all of them, and two figures come out of it
// that are steady where plain averages are not:
//
//   - the lower decile over the slices: what it costs when nobody disturbs;
//   - the median of the ratios between neighbouring slices, contestant to
//     baseline: how they compare, whatever the machine was doing.
//
// # Invariants
//
//   - All contestants have the same number of slices, and do the same number of
//     things at once.
//   - How many operations a slice has is settled before it begins. Nobody looks
//     at the clock to find out whether it is over.
//   - What was not measured is zero.
package sidebyside
