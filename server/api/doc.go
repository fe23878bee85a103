// Package api is what a companion says over HTTP to operators, programs, load
// balancers and Prometheus.
//
// [New] makes an http.Handler of a [Cluster]. Whoever runs the companion
// implements that; the package knows no sockets, no consensus and no PostgreSQL.
// What it answers is declared here as well ([Overview], [History], [Settings], …), and
// is what server/client hands to Go programs. The file openapi.json describes the
// same for everybody else, and a test holds the two together.
//
// # What always holds
//
//   - Every companion answers every question from what it knows itself. Orders are
//     carried out by the leader; a [Cluster] brings them there.
//   - Whatever goes wrong is told as an [Error]: a code for programs, a message for
//     people, and a hint what to do.
//   - A listener of the watch stream gets the newest bulletin, never a queue of old
//     ones. Each bulletin is encoded once, for however many listeners.
//   - Nothing runs between requests: a handler that nobody asks costs nothing.
package api
