// Package elsewhere has its comment where nobody looks for it.
package elsewhere
