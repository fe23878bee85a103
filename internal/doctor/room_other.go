//go:build !linux && !darwin

package doctor

import "errors"

// room is not known here.
func room(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }
