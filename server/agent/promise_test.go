package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAPromiseIsKeptOverARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p, err := openPromises(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.get(); got != (promise{}) {
		t.Errorf("a new one has promised %+v", got)
	}
	want := promise{Sealed: 7, Epoch: 6, Primary: "n1", Reign: 3}
	if err := p.change(func(p *promise) { *p = want }); err != nil {
		t.Fatal(err)
	}
	again, err := openPromises(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.get(); got != want {
		t.Errorf("after a restart %+v is promised, want %+v", got, want)
	}
	if got := want.newest(); got != 7 {
		t.Errorf("the newest epoch of %+v is %d, want 7", want, got)
	}
}

// What cannot be written is not promised.
func TestAPromiseThatIsNotOnDiskIsNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p, err := openPromises(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := p.change(func(p *promise) { p.Sealed = 1 }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a promise without a directory: %v, want %v", err, os.ErrNotExist)
	}
	if got := p.get(); got != (promise{}) {
		t.Errorf("%+v is promised, want nothing", got)
	}
}

func TestADamagedPromiseIsNoneToGoOnWith(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, promiseFile), []byte(`{"sealed":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPromises(dir); err == nil {
		t.Error("a damaged file is read without an error")
	}
}
