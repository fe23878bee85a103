package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Rule is one thing that holds in the whole tree.
type Rule struct {
	Name  string
	Check func(*Tree) []Finding
}

// Rules are the rules about sources; those about imports are in [Edges].
func Rules() []Rule {
	return []Rule{
		{"goroutines have an owner", GoroutinesHaveAnOwner},
		{"only main exits", OnlyMainExits},
		{"tests do not sleep", TestsDoNotSleep},
		{"functions are short", FunctionsAreShort},
		{"packages say what they are for", PackagesSayWhatTheyAreFor},
		{"packages are named for what they hold", PackagesAreNamedForWhatTheyHold},
		{"nothing is left for later", NothingIsLeftForLater},
	}
}

// GoroutinesHaveAnOwner finds go statements outside tests.
func GoroutinesHaveAnOwner(t *Tree) []Finding {
	return inspect(t, func(f *File, n ast.Node) string {
		if _, ok := n.(*ast.GoStmt); ok && !f.Test() {
			return "bare go statement: use sync.WaitGroup.Go or errgroup.Group.Go, so that whoever starts a goroutine also waits for it"
		}
		return ""
	})
}

// OnlyMainExits finds calls that end the process outside main and TestMain.
func OnlyMainExits(t *Tree) []Finding {
	exits := map[string]bool{"os.Exit": true, "log.Fatal": true, "log.Fatalf": true, "log.Fatalln": true}
	var findings []Finding
	for _, f := range t.Go() {
		for _, decl := range f.Syntax.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && (fn.Name.Name == "main" && f.Syntax.Name.Name == "main" || fn.Name.Name == "TestMain" && f.Test()) {
				continue
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && exits[callee(call)] {
					findings = append(findings, f.find(n, callee(call)+" outside main: return an error or an exit code, since deferred clean-up does not run at an exit and nobody can test the caller"))
				}
				return true
			})
		}
	}
	return sorted(findings)
}

// TestsDoNotSleep finds time.Sleep in tests whose clock is the real one: files
// that do not use testing/synctest.
func TestsDoNotSleep(t *Tree) []Finding {
	return inspect(t, func(f *File, n ast.Node) string {
		call, ok := n.(*ast.CallExpr)
		if ok && f.Test() && callee(call) == "time.Sleep" && !f.Imports("testing/synctest") {
			return "time.Sleep in a test: wait for the condition itself, or run in a synctest bubble, where sleeping is exact and free; a real sleep is too short on a busy machine and too long on every other"
		}
		return ""
	})
}

// longest is the length in lines a function may have; most have a quarter of it.
const longest = 80

// FunctionsAreShort finds functions of more than 80 lines outside tests. The
// lines of a composite literal count as one: a table may be as long as its facts.
func FunctionsAreShort(t *Tree) []Finding {
	var findings []Finding
	for _, f := range t.Go() {
		if f.Test() {
			continue
		}
		for _, decl := range f.Syntax.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := length(f.Set, fn); n > longest {
				findings = append(findings, f.find(fn, fmt.Sprintf("%s has %d lines, more than %d: split what it decides from what it does, so that each part can be read and tested alone", fn.Name.Name, n, longest)))
			}
		}
	}
	return sorted(findings)
}

// length counts fn's lines, those of an outermost composite literal as one.
func length(set *token.FileSet, fn *ast.FuncDecl) int {
	lines := func(n ast.Node) int { return set.Position(n.End()).Line - set.Position(n.Pos()).Line }
	total := lines(fn) + 1
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if lit, ok := n.(*ast.CompositeLit); ok {
			total -= lines(lit)
			return false
		}
		return true
	})
	return total
}

// PackagesSayWhatTheyAreFor finds directories whose package has no comment in
// doc.go (a command may have it in main.go, a directory of tests anywhere).
func PackagesSayWhatTheyAreFor(t *Tree) []Finding {
	type room struct{ hasCode, inPlace, inTests bool }
	rooms := map[string]*room{}
	for _, f := range t.Go() {
		dir, base := path.Split(f.Path)
		if rooms[dir] == nil {
			rooms[dir] = &room{}
		}
		r, documented := rooms[dir], f.Syntax.Doc != nil
		switch {
		case f.Test():
			r.inTests = r.inTests || documented
		case base == "doc.go", base == "main.go" && f.Syntax.Name.Name == "main":
			r.inPlace = r.inPlace || documented
		}
		r.hasCode = r.hasCode || !f.Test()
	}
	var findings []Finding
	for dir, r := range rooms {
		if !r.inPlace && (r.hasCode || !r.inTests) {
			findings = append(findings, Finding{File: path.Join(dir, "doc.go"), Text: "no package comment: say there what the package is for, what always holds, and who may call it from where"})
		}
	}
	return sorted(findings)
}

// saysNothing are names under which anything may be put, and therefore is.
var saysNothing = []string{"base", "common", "helper", "helpers", "misc", "shared", "types", "util", "utils"}

// PackagesAreNamedForWhatTheyHold finds packages named util and the like.
func PackagesAreNamedForWhatTheyHold(t *Tree) []Finding {
	return inspect(t, func(_ *File, n ast.Node) string {
		file, ok := n.(*ast.File)
		if ok && slices.Contains(saysNothing, strings.TrimSuffix(file.Name.Name, "_test")) {
			return "package " + file.Name.Name + ": name it for what it holds; a name that fits everything collects everything"
		}
		return ""
	})
}

// forLater is spelt so that it does not find itself.
var forLater = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)

// NothingIsLeftForLater finds notes to oneself in any text file but go.sum.
func NothingIsLeftForLater(t *Tree) []Finding {
	var findings []Finding
	for _, f := range t.Text() {
		if path.Base(f.Path) == "go.sum" {
			continue
		}
		for i, line := range bytes.Split(f.Data, []byte("\n")) {
			if note := forLater.Find(line); note != nil {
				findings = append(findings, Finding{f.Path, i + 1, string(note) + ": do it now, or write down what is not done where users look for limits; a note in the source is read by nobody who could act on it"})
			}
		}
	}
	return sorted(findings)
}

// inspect asks judge about every node of every Go file, and makes a finding of
// each answer that is not empty.
func inspect(t *Tree, judge func(*File, ast.Node) string) []Finding {
	var findings []Finding
	for _, f := range t.Go() {
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			if n == nil {
				return false
			}
			if text := judge(f, n); text != "" {
				findings = append(findings, f.find(n, text))
			}
			return true
		})
	}
	return sorted(findings)
}

// callee is the called function as written, such as "time.Sleep"; empty for
// anything but a name in a package or of a variable.
func callee(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}
