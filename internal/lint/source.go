package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A Finding is one place that breaks a rule.
type Finding struct {
	File string // relative to the tree's root, with slashes
	Line int    // 0 when the whole file or package is meant
	Text string // what is wrong, what to do instead, and why
}

// String gives the finding as compilers print theirs.
func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.File, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// A File is a source file of the tree: Go is parsed, the rest is text.
type File struct {
	Path   string // relative to the root, with slashes
	Data   []byte
	Syntax *ast.File // nil unless the name ends in .go
	Set    *token.FileSet
}

// Test reports whether the file belongs to a test binary only.
func (f *File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Imports reports whether the file imports the package at importPath.
func (f *File) Imports(importPath string) bool {
	return f.Syntax != nil && slices.ContainsFunc(f.Syntax.Imports, func(i *ast.ImportSpec) bool {
		return strings.Trim(i.Path.Value, `"`) == importPath
	})
}

// line is where node begins.
func (f *File) line(node ast.Node) int { return f.Set.Position(node.Pos()).Line }

// find makes a finding at node.
func (f *File) find(node ast.Node, text string) Finding {
	return Finding{File: f.Path, Line: f.line(node), Text: text}
}

// A Tree is every file that people write, as it is on disk: files that git does
// not know yet are judged too.
type Tree struct {
	Files []*File
}

// notSource are directories whose content nobody here writes by hand, or writes
// to be wrong on purpose.
var notSource = map[string]bool{
	".git": true, ".tools": true, "bin": true, "node_modules": true, "testdata": true, "tmp": true,
}

// Load reads the tree below root. A Go file that does not parse is an error.
func Load(root string) (*Tree, error) {
	tree := &Tree{}
	set := token.NewFileSet()
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && notSource[path.Base(name)]:
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		file, err := load(set, root, name)
		if err != nil {
			return err
		}
		tree.Files = append(tree.Files, file)
		return nil
	})
	return tree, err
}

// load reads one file, and parses it if it is Go.
func load(set *token.FileSet, root, name string) (*File, error) {
	full := filepath.Join(root, filepath.FromSlash(name))
	data, err := os.ReadFile(full)
	if err != nil {
		return nil, err
	}
	file := &File{Path: name, Data: data, Set: set}
	if path.Ext(name) == ".go" {
		file.Syntax, err = parser.ParseFile(set, full, data, parser.ParseComments|parser.SkipObjectResolution)
	}
	return file, err
}

// Go returns the parsed files that a person wrote.
func (t *Tree) Go() []*File {
	var files []*File
	for _, f := range t.Files {
		if f.Syntax != nil && !ast.IsGenerated(f.Syntax) {
			files = append(files, f)
		}
	}
	return files
}

// Text returns the files that are text.
func (t *Tree) Text() []*File {
	var files []*File
	for _, f := range t.Files {
		if !bytes.ContainsRune(f.Data[:min(len(f.Data), 8000)], 0) {
			files = append(files, f)
		}
	}
	return files
}

// sorted orders findings by place, and leaves out what was found twice.
func sorted(findings []Finding) []Finding {
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Text, b.Text))
	})
	return slices.Compact(findings)
}
