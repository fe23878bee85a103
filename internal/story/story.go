package story

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what is seen into testdata")

// Tell runs a test for each story of testdata. It is named by its file.
func Tell(t *testing.T, play func(t *testing.T, file string)) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { play(t, file) })
	}
}

// Play plays the scenes of one file. Scene has everything happen that its lines say,
// which are neither empty nor comments, and returns what is then to be seen.
func Play(t *testing.T, file string, scene func(lines []string) string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		happens, want, _ := strings.Cut(part+"\n", "\n----\n")
		got := scene(linesOf(happens))
		if got != want && !*rewrite {
			t.Errorf("%s: after\n%s\ngot\n%swant\n%s", file, happens, got, want)
		}
		told = append(told, strings.TrimSpace(happens)+"\n----\n"+got)
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(strings.Join(told, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// linesOf returns what happens, line by line.
func linesOf(happens string) []string {
	var lines []string
	for line := range strings.Lines(happens) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}
