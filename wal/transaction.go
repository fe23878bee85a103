package wal

import (
	"encoding/binary"
	"iter"
	"time"
)

// A TransactionEnd is what a record says that ends a transaction.
type TransactionEnd struct {
	Committed bool      // false if it was aborted
	Prepared  bool      // it had been prepared before, maybe by another session
	XID       uint32    // of the transaction, which is not the record's own if it had been prepared
	Time      time.Time // by the clock of the server
	Database  uint32    // oid; 0 where the record does not tell

	subtransactions []byte
}

// Subtransactions returns the transaction ids that end together with it.
func (t *TransactionEnd) Subtransactions() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := 0; i+4 <= len(t.subtransactions); i += 4 {
			if !yield(binary.LittleEndian.Uint32(t.subtransactions[i:])) {
				return
			}
		}
	}
}

// What stands in a record that ends a transaction (xl_xact_xinfo in access/xact.h).
const (
	endHasDatabase        = 1 << 0
	endHasSubtransactions = 1 << 1
	endHasFiles           = 1 << 2
	endHasInvalidations   = 1 << 3
	endHasPrepared        = 1 << 4
	endHasDroppedStats    = 1 << 8 // since PostgreSQL 15
)

// TransactionEnd returns what a record says that commits or aborts a transaction,
// and false if it is none. The result is valid as long as the record.
func (r *Record) TransactionEnd() (TransactionEnd, bool) {
	t := TransactionEnd{XID: r.XID}
	info := r.Info & infoTransactionMask
	t.Committed = info == infoCommit || info == infoCommitPrepared
	t.Prepared = info == infoCommitPrepared || info == infoAbortPrepared
	if r.Manager != ManagerTransaction || !t.Committed && !t.Prepared && info != infoAbort {
		return TransactionEnd{}, false
	}
	f := fields{rest: r.Main}
	t.Time = timeOf(int64(f.u64()))
	if r.Info&infoTransactionHasMap != 0 {
		t.parse(&f, r.Version)
	}
	return t, !f.short
}

// parse reads what follows the time: ParseCommitRecord and ParseAbortRecord in
// xactdesc.c. What comes behind the prepared transaction is left out.
func (t *TransactionEnd) parse(f *fields, version int) {
	has := f.u32()
	if has&endHasDatabase != 0 {
		t.Database = f.u32()
		f.take(4) // tablespace
	}
	if has&endHasSubtransactions != 0 {
		t.subtransactions = f.list(4)
	}
	if has&endHasFiles != 0 {
		f.list(12)
	}
	if has&endHasDroppedStats != 0 && version >= 15 {
		size := 12
		if version >= 18 { // where statistics are named by 64 bits
			size = 16
		}
		f.list(size)
	}
	if has&endHasInvalidations != 0 && t.Committed {
		f.list(16)
	}
	if has&endHasPrepared != 0 {
		t.XID = f.u32()
	}
}

// list reads a number and so many items of a size, and returns the items.
func (f *fields) list(size int) []byte {
	n := f.u32()
	if uint64(n)*uint64(size) > uint64(len(f.rest)) {
		f.rest, f.short = nil, true
		return nil
	}
	return f.take(int(n) * size)
}

// timeOf turns microseconds since the beginning of 2000 (TimestampTz) into a time.
func timeOf(µs int64) time.Time {
	const epoch = 946684800 // of PostgreSQL, in seconds of Unix
	return time.Unix(epoch+µs/1e6, µs%1e6*1e3).UTC()
}
