// Package pool holds the physical connections to one node.
package pool
