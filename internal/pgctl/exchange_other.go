//go:build unix && !linux

package pgctl

import "errors"

// exchangeNames is a call that only Linux is known to have.
func exchangeNames(string, string) error { return errors.ErrUnsupported }
