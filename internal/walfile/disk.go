package walfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/heliosdb/helios/internal/durable"
)

// temporarySuffix ends the names of files that are being made. What a crash
// leaves of them is removed.
const temporarySuffix = ".tmp"

// An operation is a way in which a spool changes its directory.
type operation string

const (
	opCreate   operation = "create"
	opWrite    operation = "write"
	opSync     operation = "sync"
	opRename   operation = "rename"
	opRemove   operation = "remove"
	opTruncate operation = "truncate"
)

// disk is the directory of a spool as it is changed. Every error names the file.
type disk struct {
	path  string
	syncs atomic.Int64                          // how often it waited for the device
	fault func(op operation, name string) error // for tests: asked before each change; nil if there are no faults
}

// file returns the path of a file of the directory.
func (d *disk) file(name string) string { return filepath.Join(d.path, name) }

// before asks whether an operation is to fail.
func (d *disk) before(op operation, name string) error {
	if d.fault == nil {
		return nil
	}
	if err := d.fault(op, filepath.Base(name)); err != nil {
		return &fs.PathError{Op: string(op), Path: name, Err: err}
	}
	return nil
}

// create makes a file that is to be read and written; what has its name is lost.
func (d *disk) create(name string) (*os.File, error) {
	path := d.file(name)
	if err := d.before(opCreate, path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
}

// writeAt writes all of p at an offset.
func (d *disk) writeAt(f *os.File, p []byte, offset int64) error {
	if err := d.before(opWrite, f.Name()); err != nil {
		return err
	}
	_, err := f.WriteAt(p, offset)
	return err
}

// sync makes a file last over a crash, though perhaps not its name.
func (d *disk) sync(f *os.File) error {
	if err := d.before(opSync, f.Name()); err != nil {
		return err
	}
	d.syncs.Add(1)
	if err := datasync(f); err != nil {
		return &fs.PathError{Op: string(opSync), Path: f.Name(), Err: err}
	}
	return nil
}

// syncNames makes the names of files last over a crash.
func (d *disk) syncNames() error {
	if err := d.before(opSync, d.path); err != nil {
		return err
	}
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	d.syncs.Add(1)
	return errors.Join(f.Sync(), f.Close())
}

// rename gives a file another name, which lasts over a crash on return.
func (d *disk) rename(from, to string) error {
	if err := d.before(opRename, d.file(from)); err != nil {
		return err
	}
	if err := os.Rename(d.file(from), d.file(to)); err != nil {
		return err
	}
	return d.syncNames()
}

// remove removes a file. That one is missing is no error.
func (d *disk) remove(name string) error {
	if err := d.before(opRemove, d.file(name)); err != nil {
		return err
	}
	if err := os.Remove(d.file(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// truncate cuts a file.
func (d *disk) truncate(f *os.File, size int64) error {
	if err := d.before(opTruncate, f.Name()); err != nil {
		return err
	}
	return f.Truncate(size)
}

// replace makes a file with what content yields, all at once: after a crash it
// is whole or as it was before.
func (d *disk) replace(name string, content io.Reader) error {
	temporary := name + temporarySuffix
	f, err := d.create(temporary)
	if err != nil {
		return err
	}
	err = errors.Join(d.fill(f, content), f.Close())
	if err == nil {
		return d.rename(temporary, name)
	}
	return errors.Join(err, d.remove(temporary))
}

// copyBuffer is how much of a file is copied at once, in bytes.
const copyBuffer = 256 << 10

// fill writes content to a new file and waits until it is on the device.
func (d *disk) fill(f *os.File, content io.Reader) error {
	buf := make([]byte, copyBuffer)
	for offset := int64(0); ; {
		n, err := io.ReadFull(content, buf)
		if n > 0 {
			if err := d.writeAt(f, buf[:n], offset); err != nil {
				return err
			}
			offset += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return d.sync(f)
		case err != nil:
			return err
		}
	}
}

// removeTemporary removes what a crash has left half made.
func (d *disk) removeTemporary() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), temporarySuffix) {
			if err := d.remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// lockName is the file that is locked while a spool is open.
const lockName = "spool.lock"

// ErrInUse means that another process, or this one, has the spool open.
var ErrInUse = errors.New("is in use")

// lock makes the directory this spool's alone until the file is closed.
func (d *disk) lock() (*os.File, error) {
	f, err := durable.Lock(d.file(lockName), ErrInUse)
	if err != nil {
		return nil, fmt.Errorf("spool %w", err)
	}
	return f, nil
}
