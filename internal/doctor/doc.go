// Package doctor looks at a cluster from outside, and says what is wrong with it,
// why that matters and which command mends it.
//
// [Look] asks: the companions over HTTP, the PostgreSQL servers by SQL if it is told
// how, and this machine's files. [Picture.Findings] judges, and does nothing else, so that
// each finding is tested with a picture that was painted by hand.
//
// # Invariants
//
//   - Nothing is changed anywhere, and nothing is asked that takes long: whoever does
//     not answer is a finding.
//   - A finding is told once, of the node that it is about, with the next step.
package doctor
