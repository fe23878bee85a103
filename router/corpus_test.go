package router_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/heliosdb/helios/router"
)

// example is a statement of testdata/corpus.txt with the class it must have.
type example struct {
	line  int
	title string // what the examples around it have in common
	sql   string
	class router.Class
}

var classByName = map[string]router.Class{
	"read": router.Read, "write": router.Write, "utility": router.Utility, "session": router.Session,
}

// corpus reads testdata/corpus.txt.
func corpus(tb testing.TB) []example {
	tb.Helper()
	text, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var examples []example
	current := example{}
	for line := range strings.Lines(string(text)) {
		current.line++
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "== "):
			class, title, _ := strings.Cut(line[len("== "):], ": ")
			var known bool
			if current.class, known = classByName[class]; !known {
				tb.Fatalf("corpus line %d: no class is called %q", current.line, class)
			}
			current.title = title
		default:
			current.sql = line
			if sql, err := strconv.Unquote(line); err == nil {
				current.sql = sql
			}
			examples = append(examples, current)
		}
	}
	return examples
}

func TestEveryStatementOfTheCorpusHasItsClass(t *testing.T) {
	var reads, kept, mustBePrimary, unsafe int
	for _, x := range corpus(t) {
		s := router.Classify(x.sql)
		if s.Class != x.class {
			t.Errorf("corpus line %d: Classify(%q) = %v (%s), want %v", x.line, x.sql, s.Class, s.Reason, x.class)
		}
		switch {
		case x.class == router.Read && s.Class == router.Read:
			reads++
		case x.class == router.Read:
			reads++
			kept++
		case s.Class == router.Read:
			unsafe++
			fallthrough
		default:
			mustBePrimary++
		}
	}
	t.Logf("%d statements that belong on the primary, %d of them taken for reads; %d pure reads, %d of them kept on the primary (%.1f %%)",
		mustBePrimary, unsafe, reads, kept, 100*float64(kept)/float64(reads))
	if unsafe > 0 {
		t.Errorf("%d statements would be answered by a replica, want 0", unsafe)
	}
	if 100*kept > 3*reads {
		t.Errorf("%d of %d pure reads stay on the primary, want at most 3 %%", kept, reads)
	}
}

func TestEveryStatementHasAReasonAndFlagsThatFitItsClass(t *testing.T) {
	for _, x := range corpus(t) {
		s := router.Classify(x.sql)
		switch {
		case s.Reason == "":
			t.Errorf("Classify(%q).Reason is empty", x.sql)
		case (s.UsesState || s.TxControl) && s.Class != router.Session:
			t.Errorf("Classify(%q) uses state: %v, controls transactions: %v; class %v, want session", x.sql, s.UsesState, s.TxControl, s.Class)
		case s.Class == router.Session && !s.UsesState && !s.TxControl:
			t.Errorf("Classify(%q) is of class session and says not why", x.sql)
		case len(s.Functions) > 0 && s.Class != router.Write:
			t.Errorf("Classify(%q).Functions = %q, but its class is %v", x.sql, s.Functions, s.Class)
		}
	}
}

// disguise returns sql with the same meaning in another shape: other white
// space, comments between the tokens, and another case of letters outside of
// quotes.
func disguise(sql string, rng *rand.Rand) string {
	fillers := []string{
		" ", "\n", "\t\r\n", " /* for update */ ", "/* ' */", "/* $$ */", `/* " */`, "/* ; /* nested */ */",
		" -- '\n", " -- for update\n", " -- $q$ ;\n", "\f", "/**/",
	}
	var b strings.Builder
	for i, token := range router.Tokens(sql) {
		if i > 0 || !strings.Contains(sql, "helios:") {
			b.WriteString(fillers[rng.IntN(len(fillers))])
		}
		if !strings.ContainsAny(token, `'"$`) {
			token = swapCase(token, rng)
		}
		b.WriteString(token)
	}
	return b.String()
}

func swapCase(s string, rng *rand.Rand) string {
	b := []byte(s)
	for i, c := range b {
		if letter := c | 0x20; 'a' <= letter && letter <= 'z' && rng.IntN(2) == 0 {
			b[i] ^= 0x20
		}
	}
	return string(b)
}

func TestTheShapeOfAStatementDoesNotChangeItsClass(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	mutants := 0
	for _, x := range corpus(t) {
		want := router.Classify(x.sql)
		if strings.Contains(want.Reason, "unterminated") {
			continue
		}
		for range 40 {
			sql := disguise(x.sql, rng)
			mutants++
			if got := router.Classify(sql); !same(got, want) {
				t.Errorf("corpus line %d: Classify(%q) = %+v, want as for %q: %+v", x.line, sql, got, x.sql, want)
			}
		}
	}
	t.Logf("%d mutants", mutants)
}

// same reports whether two texts were found to be alike.
func same(a, b *router.Statement) bool {
	return a.Class == b.Class && a.Count == b.Count && a.Verb == b.Verb && a.TxControl == b.TxControl &&
		a.Invalidates == b.Invalidates && a.SetsLocal == b.SetsLocal && a.UsesState == b.UsesState &&
		a.Deallocates == b.Deallocates && len(a.Functions) == len(b.Functions)
}

// Whatever a statement holds, putting it behind another one must not make it a
// read, and putting a read behind it must not either.
func TestARestOfReadsHidesNothing(t *testing.T) {
	for _, x := range corpus(t) {
		alone := router.Classify(x.sql)
		if strings.Contains(alone.Reason, "unterminated") || alone.Count == 0 {
			continue
		}
		sql := "SELECT 1;" + x.sql + "\n; SELECT 2"
		got := router.Classify(sql)
		want := alone.Class
		if want == router.Write {
			want = router.Utility
		}
		if got.Class != want {
			t.Errorf("Classify(%q).Class = %v (%s), want %v", sql, got.Class, got.Reason, want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, x := range corpus(f) {
		f.Add(x.sql, uint64(1))
	}
	for _, sql := range []string{"", ";", "$", "$a", "$1$", "E'\\", "U&\"", "/*/", "--", "((((", "))))", "a.b.c.", "::", "1e--1", "\x00", "\xff("} {
		f.Add(sql, uint64(2))
	}
	f.Fuzz(func(t *testing.T, sql string, seed uint64) {
		s := router.Classify(sql)
		if strings.Contains(sql, "helios:") || strings.Contains(s.Reason, "unterminated") {
			return
		}
		mutant := disguise(sql, rand.New(rand.NewPCG(seed, seed)))
		if got := router.Classify(mutant); !same(got, s) {
			t.Errorf("Classify(%q) = %+v, want as for %q: %+v", mutant, got, sql, s)
		}
	})
}
