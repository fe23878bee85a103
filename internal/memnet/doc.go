// Package memnet connects clients and servers of one test in memory, so that HTTP runs
// in fake time (testing/synctest) and a reader that does not read is exactly that: nothing is
// buffered on the way.
package memnet
