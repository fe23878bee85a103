// Package durable writes files that a crash leaves whole, and locks what only one
// process may use.
package durable
