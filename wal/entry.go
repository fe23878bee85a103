package wal

import (
	"bytes"
	"time"
)

// A Relation is the place that an [Entry] is about.
type Relation struct {
	File RelFile // zero if the entry is about no relation
	Fork Fork
	Name string // "" unless whoever reads the log has a catalog at hand
}

// An Entry is a record in the words of people who read it: what was done to what,
// by whom and when.
type Entry struct {
	LSN       LSN       // where the record begins
	End       LSN       // where the next one may begin: who has replayed it is here
	TxnID     uint32    // 0 for what belongs to no transaction
	Timestamp time.Time // of a commit or abort, by the clock of the server; zero for all others, which have none
	Manager   Manager   // what Operation is a word of: there is a CREATE of several
	Operation string    // as pg_waldump prints it, such as INSERT, HOT_UPDATE or COMMIT
	Relation  Relation  // of the first block that the record names
	Data      []byte    // the whole record without page headers; see [Entry.Clone]
	Checksum  uint32    // CRC-32C that the record carries, and that fits
}

// Entry returns the record as an entry, whose Data is the record's own and valid
// as long as that is.
func (r *Record) Entry() Entry {
	e := Entry{
		LSN: r.LSN, End: r.End, TxnID: r.XID, Manager: r.Manager, Operation: r.Operation(), Data: r.Raw, Checksum: r.Checksum,
	}
	if t, ok := r.TransactionEnd(); ok {
		e.TxnID, e.Timestamp = t.XID, t.Time
	}
	if r.used > 0 {
		e.Relation = Relation{File: r.blocks[0].File, Fork: r.blocks[0].Fork}
	}
	return e
}

// Clone returns an entry whose Data nobody else has, so that it may be kept.
func (e Entry) Clone() Entry {
	e.Data = bytes.Clone(e.Data)
	return e
}
