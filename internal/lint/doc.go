// Package lint checks the rules of this house that no general linter knows: how
// goroutines are started, which package may import which, how long a function
// may be, and that the documentation says what the code does.
//
// A rule is a function from parsed sources to findings, so that it can be tried
// on small fixtures in testdata; a finding says what to do instead and why. The
// package's own tests run every rule on the whole repository:
//
//	go test ./internal/lint/...          # is the house in order?
//	go test ./internal/lint -rewrite     # what the fixtures yield, to be reviewed as a diff
//	make docs                            # the tables in the documentation
//
// # Invariants
//
//   - Rules look at sources only: nothing here runs the code it judges, except
//     for the table of keys, which is asked of the driver.
//   - Nothing outside this package's tests imports it.
package lint
