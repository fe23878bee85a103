// Package beat has what is done from time to time done together.
//
// What wakes a quiet process costs more than what it does then: the kernel, the
// scheduler and the runtime's monitor run each time, 30 to 150 µs on a small virtual
// machine. Tasks whose periods begin anywhere wake it one by one; those that wait for
// the next multiple of their period, by the clock of the machine, meet.
package beat
