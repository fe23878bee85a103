// Package container makes clusters of internal/pgtest out of containers, one a
// server, through testcontainers-go. A test that wants them imports it for its
// effect:
//
//	import _ "github.com/heliosdb/helios/internal/pgtest/container"
//
// and is run with HELIOS_TEST_POSTGRES=docker, or auto on a machine that has a
// Docker engine and no PostgreSQL. $HELIOS_TEST_IMAGE names the image,
// postgres:17 if it is not set. It has to have a shell, a user postgres and
// PostgreSQL's programs on its PATH; its own entrypoint is not used, so that
// primary and replicas are set up the same way.
//
// It is a package of its own so that `helios demo` does not link it.
//
// # What differs from servers of this machine
//
//   - A stopped server cannot be configured.
//   - A server that rejoins is made anew from the primary, never rewound.
package container
