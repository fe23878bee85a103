// Package readme compares the README with what the driver declares. It is apart
// from package lint so that the other rules are checked even while the driver
// does not build.
package readme

import (
	"flag"
	"os"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/lint"
)

var rewrite = flag.Bool("rewrite", false, "write the README's table of keys")

func TestReadmeListsEveryKey(t *testing.T) {
	const file = "../../../README.md"
	var keys []lint.Key
	for _, k := range helios.Keys() {
		keys = append(keys, lint.Key(k))
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := lint.WithKeyTable(string(got), lint.KeyTable(keys))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if string(got) == want {
		return
	}
	if !*rewrite {
		t.Fatalf("%s does not list the keys as config.go declares them: run make docs, so that users read what the program does", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
