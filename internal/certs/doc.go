// Package certs makes a cluster's certificates, and speaks TLS with them.
//
// One authority, made once and kept away from the servers, signs a certificate for each
// node and each operator. A node's has the common name helios, which is also the role as
// which companions connect to PostgreSQL and to each other's relays, so that one pair of
// files serves them all. What the node is called stands in its organizational unit.
//
// # Invariants
//
//   - Keys are written for their owner only, and a key that everybody may read is not
//     used.
//   - Nothing is overwritten unless that was asked for.
//   - A certificate and its key are read together; if the files that have come do
//     not fit, those in use stay.
//
// An [Identity] is safe for concurrent use.
package certs
