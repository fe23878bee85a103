package pgctl

import "golang.org/x/sys/unix"

// exchangeNames makes each of two files the one of the other's name.
func exchangeNames(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
