// Package integration tells stories about helios and real PostgreSQL
// clusters, one a file: what a program sees while nodes lag, crash, hang, lie,
// come back and go.
//
// Every story starts a cluster of its own (see internal/pgtest) and looks at
// both ends: at what the driver told the program, and at what the servers hold.
// Nothing waits for a while: a story waits for what it needs, with a deadline.
//
//	go test -race ./integration_test
//	HELIOS_TEST_TLS=1 go test -race ./integration_test
//	HELIOS_TEST_POSTGRES=docker go test -race ./integration_test
//
// With -short the long stories are told with fewer statements.
package integration
