package lint

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests expect: testdata/*.txt")

// root is the repository, seen from this package.
const root = "../.."

func TestEveryRuleHoldsInThisHouse(t *testing.T) {
	tree, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range Rules() {
		t.Run(rule.Name, func(t *testing.T) { report(t, rule.Check(tree)) })
	}
}

func TestImportsPointDown(t *testing.T) {
	packages, err := Packages(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) == 0 {
		t.Fatal("go list found no package")
	}
	report(t, CheckEdges(packages, Edges()))
}

func report(t *testing.T, findings []Finding) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

func TestRulesFindWhatTheyForbidAndNothingElse(t *testing.T) {
	for dir, check := range map[string]func(*Tree) []Finding{
		"goroutines": GoroutinesHaveAnOwner,
		"exits":      OnlyMainExits,
		"sleeps":     TestsDoNotSleep,
		"lengths":    FunctionsAreShort,
		"documented": PackagesSayWhatTheyAreFor,
		"names":      PackagesAreNamedForWhatTheyHold,
		"later":      NothingIsLeftForLater,
	} {
		t.Run(dir, func(t *testing.T) {
			tree, err := Load(filepath.Join("testdata", dir))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range check(tree) {
				got.WriteString(f.String() + "\n")
			}
			golden(t, filepath.Join("testdata", dir+".txt"), got.String())
		})
	}
}

// golden compares got with what the file says, or makes the file say it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\ngot:\n%swant:\n%s", file, got, want)
	}
}

func TestEveryRuleHasAFixture(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != len(Rules()) {
		t.Errorf("%d rules and %d fixtures in testdata: %v", len(Rules()), len(dirs), dirs)
	}
}

func TestLoadRefusesGoThatDoesNotParse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "half.go"), []byte("package half\nfunc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "half.go") {
		t.Errorf("Load = %v, want an error that names half.go", err)
	}
}

// A small world of packages: own ones by their path in the module.
func world() []Package {
	own := func(name string, deps ...string) Package {
		return Package{ImportPath: strings.TrimSuffix(Module+"/"+name, "/"), Imports: deps, Deps: deps}
	}
	return []Package{
		{ImportPath: "net", Standard: true},
		{ImportPath: "strings", Standard: true},
		own("wal", "strings"),
		own("topology", Module+"/wal", "strings"),
		own("router", Module+"/topology", Module+"/wal", "net", "strings"),
		{ImportPath: "github.com/hashicorp/raft", Imports: []string{"net"}, Deps: []string{"net"}},
		{ImportPath: "example.com/logger", Imports: []string{"github.com/hashicorp/raft"}, Deps: []string{"github.com/hashicorp/raft", "net"}},
		{ImportPath: Module, Imports: []string{"example.com/logger", Module + "/router"}, Deps: []string{"example.com/logger", "github.com/hashicorp/raft", "net", Module + "/router"}},
		own("server", "github.com/hashicorp/raft"),
	}
}

func TestEdgesFollowImportsThroughOtherPackages(t *testing.T) {
	for name, tt := range map[string]struct {
		edge Edge
		want []string
	}{
		"through a package in between": {
			Edge{From: []string{"."}, Never: []string{"github.com/hashicorp/..."}, Why: "why"},
			[]string{Module + ": imports example.com/logger → github.com/hashicorp/raft: why"},
		},
		"itself only": {
			Edge{From: []string{"./..."}, Never: []string{"github.com/hashicorp/..."}, Direct: true, Why: "why"},
			[]string{Module + "/server: imports github.com/hashicorp/raft: why"},
		},
		"with an exception": {
			Edge{From: []string{"./..."}, Except: []string{"./server"}, Never: []string{"github.com/hashicorp/..."}, Direct: true},
			nil,
		},
		"the standard library only": {
			Edge{From: []string{"./wal", "./topology"}, Only: []string{}, Why: "why"},
			[]string{Module + "/topology: imports " + Module + "/wal: why"},
		},
		"only what is listed and the standard library": {
			Edge{From: []string{"./topology", "./router"}, Only: []string{"./topology", "./wal"}},
			nil,
		},
		"a package of the standard library": {
			Edge{From: []string{"./router"}, Never: []string{"net"}, Direct: true, Why: "why"},
			[]string{Module + "/router: imports net: why"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range CheckEdges(world(), []Edge{tt.edge}) {
				got = append(got, f.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("CheckEdges = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEveryEdgeSaysWhy(t *testing.T) {
	for _, e := range Edges() {
		if e.Why == "" || len(e.From) == 0 || e.Never == nil && e.Only == nil {
			t.Errorf("edge without a reason or an end: %+v", e)
		}
	}
}

func TestPatternsNamePackagesAndWhatIsBelow(t *testing.T) {
	for name, tt := range map[string]struct {
		path, pattern string
		want          bool
	}{
		"the root":                  {Module, ".", true},
		"not below the root":        {Module + "/wal", ".", false},
		"all of the module":         {Module + "/wal", "./...", true},
		"the root is in all":        {Module, "./...", true},
		"another module":            {Module + "db/wal", "./...", false},
		"one room":                  {Module + "/wal", "./wal", true},
		"not the room below":        {Module + "/wal/relay", "./wal", false},
		"the rooms below":           {Module + "/wal/relay", "./wal/...", true},
		"a version of a module":     {"github.com/jackc/pgx/v5/stdlib", "github.com/jackc/pgx/v5/...", true},
		"not a name that is longer": {"github.com/jackc/pgx/v56", "github.com/jackc/pgx/v5/...", false},
	} {
		if got := matches(tt.path, []string{tt.pattern}); got != tt.want {
			t.Errorf("%s: matches(%q, %q) = %v, want %v", name, tt.path, tt.pattern, got, tt.want)
		}
	}
}

func TestTheTableStandsBetweenItsMarkers(t *testing.T) {
	table := KeyTable([]Key{{"balance", "least_conns", "random | latency", "how reads are spread"}, {"zone", "", "", "a | b"}})
	want := "before\n<!-- keys -->\n\n| key | default | meaning |\n|---|---|---|\n" +
		"| `balance` | `least_conns` | how reads are spread: `random \\| latency` |\n| `zone` |  | a \\| b |\n\n<!-- /keys -->\nafter\n"
	for name, tt := range map[string]struct{ document, want string }{
		"nothing between":   {"before\n<!-- keys -->\n<!-- /keys -->\nafter\n", want},
		"an older table":    {"before\n<!-- keys -->\n| key |\n<!-- /keys -->\nafter\n", want},
		"already right":     {want, want},
		"no markers":        {"before\n", ""},
		"markers backwards": {"<!-- /keys -->\n<!-- keys -->\n", ""},
		"two tables":        {want + want, ""},
	} {
		got, err := WithKeyTable(tt.document, "keys", table)
		if (err != nil) != (tt.want == "") || got != tt.want {
			t.Errorf("%s: WithKeyTable = %q, %v, want %q", name, got, err, tt.want)
		}
	}
}
