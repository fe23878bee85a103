// Package apifake is a cluster for tests of what talks to a companion's API: an
// api.Cluster that says what the test wants, and remembers what it was ordered.
package apifake
