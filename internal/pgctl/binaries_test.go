package pgctl

import (
	"errors"
	"testing"
)

func TestVersionIsReadAsServerVersionNum(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"release with a packager's note": {"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 150018},
		"release":                        {"postgres (PostgreSQL) 17.2", 170002},
		"beta":                           {"postgres (PostgreSQL) 18beta1", 180000},
		"development":                    {"postgres (PostgreSQL) 19devel", 190000},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseVersion(tt.text); got != tt.want || err != nil {
				t.Errorf("parseVersion(%q) = %d, %v; want %d", tt.text, got, err, tt.want)
			}
		})
	}
	if got, err := parseVersion("postmaster 15"); err == nil {
		t.Errorf("parseVersion of something else = %d, want an error", got)
	}
}

func TestNamedDirectoryIsTheOnlyOneTried(t *testing.T) {
	found, err := FindBinaries()
	if errors.Is(err, ErrNoPostgres) {
		t.Skip(err)
	}
	t.Setenv("HELIOS_PG_BIN", found.Dir)
	if got, err := FindBinaries(); got != found || err != nil {
		t.Errorf("FindBinaries with HELIOS_PG_BIN=%s = %v, %v; want %v", found.Dir, got, err, found)
	}
	t.Setenv("HELIOS_PG_BIN", t.TempDir())
	if got, err := FindBinaries(); err == nil {
		t.Errorf("FindBinaries with an empty HELIOS_PG_BIN = %v, want an error", got)
	}
}

func TestPostgresIsFoundWithoutPath(t *testing.T) {
	if _, err := FindBinaries(); err != nil {
		t.Skip(err)
	}
	t.Setenv("PATH", t.TempDir())
	if got, err := FindBinaries(); err != nil && !errors.Is(err, ErrNoPostgres) {
		t.Errorf("FindBinaries with an empty PATH = %v, %v", got, err)
	}
}

func TestConnectionStringValuesAreQuoted(t *testing.T) {
	for value, want := range map[string]string{
		"/tmp/x": "/tmp/x",
		"":       "''",
		"/a b":   "'/a b'",
		`it's\`:  `'it\'s\\'`,
	} {
		if got := quoteConn(value); got != want {
			t.Errorf("quoteConn(%q) = %s, want %s", value, got, want)
		}
	}
}
