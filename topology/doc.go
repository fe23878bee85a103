// Package topology describes a cluster as seen at one moment, and decides what
// pieces of evidence from many sources add up to.
//
// A [Board] holds the newest [View]. Probers, companions and failed statements
// put what they see on it, with [Board.Observe] and [Board.Doubt]; the query
// path reads it with [Board.Peek]. Board locks and publishes, and a pure
// function decides; testdata tells that decision as stories.
//
// # Invariants
//
//   - A [View] is immutable once published; readers share it without locks.
//   - Versions only grow: a reader that has seen version 7 never acts on 6.
//   - The timeline of a view only grows as long as its system identifier stays.
//     A primary of an older timeline never takes writes again.
//   - Two primaries on one timeline are copies of each other: neither takes
//     writes until one of them has said that it is none, is taken off the board,
//     or a higher timeline appears. That it falls silent is no answer.
//   - The newest word about a node counts, bad or good. An answer to a question
//     that was asked before a doubt arose does not lift the doubt.
//
// What is not known is not guessed: a replica that shows more than it can prove
// to lie on the newest timeline is up, but [Node.OnTimeline] is false, and its
// positions must not be compared with those of the newest timeline.
package topology
