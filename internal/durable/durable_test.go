package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAFileIsReplacedWholeAndNothingIsLeftBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"first", "the second one"} {
		if err := Replace(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("the file holds %q, %v; want %q", got, err, text)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want the file alone", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat = %v, %v; want mode 0600", info, err)
	}
	if err := Replace(filepath.Join(dir, "missing", "f"), nil, 0o600); err == nil {
		t.Error("a file in no directory was written")
	}
}

func TestALockIsOnesAlone(t *testing.T) {
	mine := errors.New("taken")
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(path, mine)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path, mine); !errors.Is(err, mine) {
		t.Errorf("second Lock = %v, want %v", err, mine)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(path, mine)
	if err != nil {
		t.Fatalf("Lock after Close = %v", err)
	}
	again.Close()
}
