// Package stories holds tests only.
package stories
