// Package client asks companions over HTTP: what the cluster is like, and to do
// something about it. It is what the helios command uses, and other Go programs may.
//
// A [Client] knows the addresses of several companions. It asks the one that answered
// last, and goes on to the next when one is away. A question is asked again without
// further ado. An order is given again only if it surely has not been heard: nothing
// was sent, or the companion said that nobody leads.
//
// Whatever a companion refuses comes back as an *api.Error, with its code, its message
// and a hint.
package client
