// Package histcheck judges what clients of a cluster were told, after faults.
//
// A [Ledger] takes down every attempt to write a row, and what the client was
// told. What is in the database at the end is then held against it: all that was
// acknowledged must be there, and nothing that was never tried. A [Registers]
// takes down reads and writes of single values, and asks whether they could have
// happened one after the other.
package histcheck
