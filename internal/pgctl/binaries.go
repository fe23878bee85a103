package pgctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrNoPostgres means that no PostgreSQL programs were found on this machine.
var ErrNoPostgres = errors.New("pgctl: no PostgreSQL found on this machine")

// Binaries is a directory with the programs of one PostgreSQL release.
type Binaries struct {
	Dir     string // holds postgres, initdb, pg_ctl
	Version int    // as server_version_num has it, such as 150018
}

// Major returns the major release, such as 15.
func (b Binaries) Major() int { return b.Version / 10000 }

// Program returns the path of a program, such as "pg_basebackup". It may not
// exist: some distributions leave all but the server out.
func (b Binaries) Program(name string) string { return filepath.Join(b.Dir, name) }

// FindBinaries returns the first usable PostgreSQL among $HELIOS_PG_BIN, the
// directories of $PATH, /usr/lib/postgresql, Homebrew and helios-pg in ~/.cache or
// /var/cache; where one of the last three holds several, the newest. A directory
// is usable if the user that would run the server can execute it.
//
// If $HELIOS_PG_BIN is set, nothing else is tried. If there is none, the error
// is [ErrNoPostgres].
func FindBinaries() (Binaries, error) {
	if dir := os.Getenv("HELIOS_PG_BIN"); dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return b, fmt.Errorf("pgctl: HELIOS_PG_BIN=%s: %w", dir, err)
		}
		return b, nil
	}
	for _, dirs := range [][]string{pathDirs(), glob("/usr/lib/postgresql/*/bin"), homebrewDirs(), cacheDirs()} {
		if b, ok := newest(dirs); ok {
			return b, nil
		}
	}
	return Binaries{}, ErrNoPostgres
}

// newest returns the highest version among dirs; the first of equals.
func newest(dirs []string) (Binaries, bool) {
	var found []Binaries
	for _, dir := range dirs {
		if b, err := inspect(dir); err == nil {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return Binaries{}, false
	}
	slices.SortStableFunc(found, func(a, b Binaries) int { return cmp.Compare(b.Version, a.Version) })
	return found[0], true
}

// pathDirs returns where PATH finds PostgreSQL's programs, with links resolved:
// at most one directory, because an earlier one hides the later ones.
func pathDirs() []string {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if !complete(dir) {
			continue
		}
		if tool, err := filepath.EvalSymlinks(filepath.Join(dir, "pg_ctl")); err == nil && complete(filepath.Dir(tool)) {
			return []string{filepath.Dir(tool)}
		}
		return []string{dir}
	}
	return nil
}

func homebrewDirs() []string {
	return append(glob("/opt/homebrew/opt/postgresql*/bin"), glob("/usr/local/opt/postgresql*/bin")...)
}

// cacheDirs returns where scripts/get-postgres unpacks, and where others may.
func cacheDirs() []string {
	dirs := glob("/var/cache/helios-pg/*/usr/lib/postgresql/*/bin")
	home, err := os.UserHomeDir()
	if err != nil {
		return dirs
	}
	cache := filepath.Join(home, ".cache", "helios-pg")
	return slices.Concat(glob(filepath.Join(cache, "*/usr/lib/postgresql/*/bin")), glob(filepath.Join(cache, "*/bin")), dirs)
}

func glob(pattern string) []string {
	dirs, err := filepath.Glob(pattern)
	if err != nil {
		panic(fmt.Sprintf("pgctl: bad pattern %q: %v", pattern, err))
	}
	return dirs
}

// complete reports whether dir holds what it takes to make and run a server.
// Client packages install some of the programs without the others.
func complete(dir string) bool {
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// BinariesIn returns the release whose programs are in dir.
func BinariesIn(dir string) (Binaries, error) {
	b, err := inspect(dir)
	if err != nil {
		return b, fmt.Errorf("pgctl: %s: %w", dir, err)
	}
	return b, nil
}

// inspect asks the server in dir for its version, as the user that would run it.
func inspect(dir string) (Binaries, error) {
	b := Binaries{Dir: dir}
	if !complete(dir) {
		return b, errors.New("does not hold postgres, initdb and pg_ctl")
	}
	user, err := serverUser()
	if err != nil {
		return b, err
	}
	out, err := user.output(context.Background(), b.Program("postgres"), "--version")
	if err != nil {
		return b, err
	}
	b.Version, err = parseVersion(out)
	return b, err
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)(?:\.(\d+))?`)

// parseVersion reads what postgres --version prints: "postgres (PostgreSQL)
// 15.18 (Debian 15.18-0+deb12u1)", or "… 18beta1".
func parseVersion(s string) (int, error) {
	m := versionPattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("cannot read the version in %q", strings.TrimSpace(s))
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, err
	}
	minor, _ := strconv.Atoi(m[2]) // "" of a beta release counts as 0
	return major*10000 + minor, nil
}
