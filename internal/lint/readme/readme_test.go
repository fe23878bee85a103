// Package readme compares the documentation with what the code declares. It is apart
// from package lint so that the other rules are checked even while the driver
// does not build.
package readme

import (
	"flag"
	"os"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/lint"
	"github.com/heliosdb/helios/server/config"
)

var rewrite = flag.Bool("rewrite", false, "write the tables of keys")

func TestReadmeListsEveryKey(t *testing.T) {
	var keys []lint.Key
	for _, k := range helios.Keys() {
		keys = append(keys, lint.Key(k))
	}
	compare(t, "../../../README.md", "keys", keys)
}

func TestTheOperatorsPageListsEveryKey(t *testing.T) {
	of := map[config.Scope][]lint.Key{}
	for _, k := range config.Keys() {
		of[k.Scope] = append(of[k.Scope], lint.Key{Name: k.Name, Default: k.Default, Values: k.Values, Help: k.Help})
	}
	compare(t, "../../../docs/companion.md", "keys of a node", of[config.ScopeNode])
	compare(t, "../../../docs/companion.md", "keys of a cluster", of[config.ScopeCluster])
}

// compare holds the table of that name in file to keys, or writes it.
func compare(t *testing.T, file, name string, keys []lint.Key) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := lint.WithKeyTable(string(got), name, lint.KeyTable(keys))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if string(got) == want {
		return
	}
	if !*rewrite {
		t.Fatalf("%s does not list the keys as the code declares them: run make docs, so that users read what the program does", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
