// Package router decides what a statement is and which node may answer it. It
// does no I/O and starts no goroutine.
//
// # What a statement is
//
// [Classify] reads an SQL text once with a lexer of PostgreSQL's grammar and
// finds its [Class]; a [Cache] remembers the answers. It knows words, quotes,
// comments and parentheses, and of the grammar only what tells whether a
// statement may change something. A parser would know more and cost a hundred
// times as much.
//
// # Invariants
//
//   - Whatever is not surely a pure read is not a [Read]: unknown statements and
//     functions, and text that is not PostgreSQL's, belong on the primary.
//   - No word ends the look at a text: what is said about the state of the
//     session and about settings holds for the whole of it.
//   - The class does not depend on comments, white space or the case of letters.
//   - A [Statement] never changes, except that it learns.
//
// What a text cannot show, a standby does: it refuses to write, and the driver
// calls [Statement.Learn]. Quotes are read with standard_conforming_strings on,
// as every PostgreSQL since 9.1 has it by default.
//
// Statements and caches are safe for concurrent use. A text that a cache knows
// costs no allocation.
package router
