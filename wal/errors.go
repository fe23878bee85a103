package wal

import "fmt"

// A CorruptError says that what stands in the log cannot have been written by
// PostgreSQL: it is damaged, or is no log.
type CorruptError struct {
	LSN    LSN    // of the record or page
	Reason string // in the words of PostgreSQL where it has some
}

// Error says where the log is damaged and how.
func (e *CorruptError) Error() string { return fmt.Sprintf("wal: damaged at %s: %s", e.LSN, e.Reason) }

// An EndError says that nothing was written from here on: the place is empty, or
// still holds what the file held before it was recycled. It is how the log of a
// running or a crashed server ends, and no sign of damage.
type EndError struct {
	LSN    LSN    // where the next record would begin
	Reason string // in the words of PostgreSQL
}

// Error says where the log ends and how that is known.
func (e *EndError) Error() string { return fmt.Sprintf("wal: ends at %s: %s", e.LSN, e.Reason) }

// A VersionError says that a page was written by a PostgreSQL whose records this
// package does not know: 13 to 18 are known.
type VersionError struct {
	LSN   LSN // of the page
	Magic uint16
}

// Error names the magic number, by which a version can be looked up.
func (e *VersionError) Error() string {
	return fmt.Sprintf("wal: page at %s has magic number %04X: want one of PostgreSQL 13 to 18", e.LSN, e.Magic)
}

func corrupt(l LSN, format string, args ...any) *CorruptError {
	return &CorruptError{LSN: l, Reason: fmt.Sprintf(format, args...)}
}
