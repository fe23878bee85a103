package pgfake

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/heliosdb/helios/wal"
)

// A transaction is the state of a session's transaction block.
type transaction struct {
	status   byte          // I idle, T in a block, E in a failed block
	readOnly bool          // of a block
	wrote    bool          // its commit grows the WAL; also of an implicit transaction
	xid      atomic.Uint64 // of what wrote; 0 if nothing did; others ask for it
	doomed   *Error        // what its commit fails with; also of an implicit transaction
}

// failed is what an error does: a block is aborted, an implicit transaction
// rolled back.
func (t *transaction) failed() {
	t.wrote, t.doomed = false, nil
	t.xid.Store(0)
	if t.status == 'T' {
		t.status = 'E'
	}
}

// readOnly reports whether a write would fail now.
func (s *session) readOnly() bool {
	if s.tx.status == 'I' {
		return s.readOnlyByDefault()
	}
	return s.tx.readOnly
}

// readOnlyByDefault is what a transaction starts with.
func (s *session) readOnlyByDefault() bool {
	if !s.node.state().primary {
		return true
	}
	value, _ := s.setting("default_transaction_read_only")
	return value == "on"
}

// endsTransaction reports whether a statement is accepted in a failed block.
func endsTransaction(sql string) bool {
	return slices.Contains([]string{"COMMIT", "END", "ROLLBACK", "ABORT"}, verb(sql))
}

// begin opens a block.
func (s *session) begin(sql string) (Reply, error) {
	if s.tx.status != 'I' {
		return warn("25001", "there is already a transaction in progress"), nil
	}
	readOnly, err := s.mode(sql, s.readOnlyByDefault())
	if err != nil {
		return Reply{}, err
	}
	s.tx.status, s.tx.readOnly = 'T', readOnly
	s.settings.begin()
	return Reply{}, nil
}

// mode reads the modes of BEGIN or SET TRANSACTION; a replica refuses some.
func (s *session) mode(sql string, readOnly bool) (bool, error) {
	text := strings.ToUpper(sql)
	recovering := !s.node.state().primary
	switch {
	case recovering && strings.Contains(text, "SERIALIZABLE"):
		return readOnly, &Error{Code: "0A000", Message: "cannot use serializable mode in a hot standby"}
	case recovering && strings.Contains(text, "READ WRITE"):
		return readOnly, &Error{Code: "0A000", Message: "cannot set transaction read-write mode during recovery"}
	case strings.Contains(text, "READ ONLY"):
		return true, nil
	case strings.Contains(text, "READ WRITE"):
		return false, nil
	default:
		return readOnly, nil
	}
}

// commit ends a block and makes its writes durable, unless it has failed.
func (s *session) commit(string) (Reply, error) {
	switch s.tx.status {
	case 'E':
		return s.rollback("ROLLBACK")
	case 'I':
		s.flushWrites()
		r := warn("25P01", "there is no transaction in progress")
		r.Tag = "COMMIT"
		return r, nil
	}
	if doomed := s.tx.doomed; doomed != nil {
		_, _ = s.rollback("ROLLBACK") // of a block it cannot fail
		return Reply{}, doomed
	}
	s.flushWrites()
	s.tx.status = 'I'
	s.settings.end(true)
	return Reply{Tag: "COMMIT"}, nil
}

// commitImplicit ends the transaction that no BEGIN opened. It returns why the
// commit failed; nil if it did not.
func (s *session) commitImplicit() *Error {
	if s.tx.status != 'I' {
		return nil
	}
	if doomed := s.tx.doomed; doomed != nil {
		s.tx.wrote, s.tx.doomed = false, nil
		s.tx.xid.Store(0)
		return doomed
	}
	s.flushWrites()
	return nil
}

// flushWrites writes the commit record of a transaction that wrote.
func (s *session) flushWrites() {
	if !s.tx.wrote {
		return
	}
	s.tx.wrote = false
	value, _ := s.setting("synchronous_commit")
	c := s.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s.node.commitLocked(c.WALPerCommit, value != "off")
	c.commits[s.tx.xid.Load()] = wal.Position{Timeline: s.node.timeline, LSN: s.node.insert}
	s.tx.xid.Store(0)
}

// write notes that the transaction writes, and gives it an id.
func (s *session) write() {
	s.tx.wrote = true
	c := s.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.tx.xid.Load() == 0 {
		c.xids++
		s.tx.xid.Store(c.xids)
	}
}

// xactStatus is what became of a transaction as far as the node can tell: its
// commit is part of its history, or the transaction goes on, or it is gone.
func (n *Node) xactStatus(xid uint64) string {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if at, ok := n.cluster.commits[xid]; ok && n.cluster.history.Holds(at, n.timeline) == wal.Kept {
		return "committed"
	}
	for s := range n.sessions {
		if s.tx.xid.Load() == xid {
			return "in progress"
		}
	}
	return "aborted"
}

// rollback ends a block without effect, or goes back to a savepoint.
func (s *session) rollback(sql string) (Reply, error) {
	w := append(words(sql, 3), "", "", "")
	if s.tx.status != 'I' && (w[1] == "TO" || w[2] == "TO") {
		s.tx.status = 'T'
		return Reply{Tag: "ROLLBACK"}, nil
	}
	r := Reply{}
	if s.tx.status == 'I' {
		r = warn("25P01", "there is no transaction in progress")
	}
	s.tx.status, s.tx.wrote, s.tx.doomed = 'I', false, nil
	s.tx.xid.Store(0)
	s.settings.end(false)
	r.Tag = "ROLLBACK"
	return r, nil
}

// savepoint is also RELEASE: the model keeps no savepoints apart.
func (s *session) savepoint(sql string) (Reply, error) {
	if s.tx.status == 'I' {
		return Reply{}, &Error{Code: "25P01", Message: verb(sql) + " can only be used in transaction blocks"}
	}
	return Reply{}, nil
}

// warn returns success with a warning.
func warn(code, message string) Reply {
	return Reply{Fault: Fault{Notices: []Error{{Code: code, Message: message}}}}
}
