// Package netns makes networks inside this machine, for tests of partitions: each
// host is a network namespace, and all hang on one bridge in a namespace of its
// own, so that nothing of it touches the machine's network.
//
// A cut is silent, as that of a cable is: packets vanish, and nobody is told. It is
// made by giving one host a wrong hardware address of the other, so it has a
// direction. It takes root, and Linux with the ip program.
package netns
