// Package bare is documented by its test only.
package bare
