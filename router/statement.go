package router

import (
	"fmt"
	"sync/atomic"
)

// Class says where a statement may run and how it must be sent. A larger class
// asks for more care.
type Class uint8

const (
	// Read is surely a pure read: any node that is fresh enough may answer.
	Read Class = iota
	// Write belongs on the primary and may run inside a transaction block.
	Write
	// Utility belongs on the primary and must be sent alone, since it may refuse
	// to run inside a transaction block, end one, or use a protocol of its own.
	Utility
	// Session belongs on the primary and uses or changes state of the server
	// session, so that what follows must use the same connection.
	Session
)

var classNames = [...]string{Read: "read", Write: "write", Utility: "utility", Session: "session"}

// String returns the class in lower case, such as "utility".
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

// Hint is what the author of a statement asks for in its leading comment.
type Hint uint8

const (
	// HintNone is a statement without a hint.
	HintNone Hint = iota
	// HintPrimary stands for /* helios:primary */.
	HintPrimary
	// HintReplica stands for /* helios:replica */.
	HintReplica
)

var hintNames = [...]string{HintNone: "none", HintPrimary: "primary", HintReplica: "replica"}

// String returns "none", "primary" or "replica".
func (h Hint) String() string {
	if int(h) < len(hintNames) {
		return hintNames[h]
	}
	return fmt.Sprintf("Hint(%d)", uint8(h))
}

// A Statement is what can be known about an SQL text without asking a server.
// It never changes, except for what is learned, and is safe for concurrent use.
type Statement struct {
	SQL   string
	Class Class
	Hint  Hint
	// Count is the number of statements in the text, 0 if it is empty.
	Count int
	// Verb is the word that the first statement begins with, in upper case; empty
	// if PostgreSQL knows no such statement.
	Verb string
	// Reason tells people why the statement has its class.
	Reason string
	// TxControl is set if any statement begins or ends a transaction, a
	// subtransaction or a prepared transaction, or sets its properties.
	TxControl bool
	// Invalidates is set if prepared statements of the connection may be void
	// afterwards: DDL, DISCARD, DEALLOCATE, another search_path or role.
	Invalidates bool
	// SetsLocal is set if settings such as synchronous_commit may differ
	// afterwards, at least until the transaction ends.
	SetsLocal bool
	// UsesState is set if the text uses or changes state of the server session.
	// Its class is Session then. Transaction control alone does not set it.
	UsesState bool
	// Deallocates is set if statements that the user prepared come or go.
	Deallocates bool
	// Functions names the functions of which the class depends: if all of them
	// are IMMUTABLE or STABLE, the statement is a read, although its class is
	// Write. Names are folded as PostgreSQL does, with the schema if the text has
	// one. It is empty if the statement is no read anyway, or calls more than
	// eight such functions.
	Functions []string

	hash    uint64      // of SQL, if the statement comes from a Cache
	learned atomic.Bool // a standby has refused it
	recent  atomic.Bool // asked for since the Cache last looked for a place
}

// Learned reports whether a standby has refused this text.
func (s *Statement) Learned() bool { return s.learned.Load() }

// Learn remembers that a standby has refused this text, so that it goes to the
// primary from now on.
func (s *Statement) Learn() { s.learned.Store(true) }
