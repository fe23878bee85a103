package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/heliosdb/helios/server/config"
)

// configCommand prints what a companion would be told.
func configCommand() command {
	return command{
		name:    "config",
		args:    "",
		summary: "print what helios server would use, and where each value comes from",
		about: `It takes the flags of helios server, reads the same environment and the same file, and prints
a helios.conf. The exit code is 1 if helios server would not start with it.

Settings of the whole cluster are what a new one would begin with; helios settings show asks
a running one.`,
		flags: func(fs *flag.FlagSet) action {
			asJSON := fs.Bool("json", false, "print a JSON array")
			loader := config.Register(fs)
			return func(_ context.Context, s streams, args []string) error {
				if len(args) > 0 {
					return usageError(fmt.Sprintf("config: %q is not understood", args[0]), "helios help config")
				}
				return printConfig(s, loader, *asJSON)
			}
		},
	}
}

// printConfig prints what can be known, even if it cannot be used.
func printConfig(s streams, loader *config.Loader, asJSON bool) error {
	effective, err := loader.Load(os.Environ())
	if effective != nil {
		if err := writeConfig(s.out, effective.Settings, asJSON); err != nil {
			return err
		}
		warn(s.err, effective.Warnings)
	}
	if err != nil {
		return failed(fmt.Errorf("config: %w", err), "")
	}
	return nil
}

// warn prints what is probably not meant.
func warn(w io.Writer, warnings []string) {
	for _, text := range warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
}

// writeConfig prints the settings as a file that helios server can read, with where each
// comes from behind it.
func writeConfig(w io.Writer, settings []config.Setting, asJSON bool) error {
	if asJSON {
		return writeJSON(w, settings)
	}
	width := 0
	for i := range settings {
		width = max(width, len(settings[i].Line()))
	}
	for i := range settings {
		line := fmt.Sprintf("%-*s  # %s", width, settings[i].Line(), source(&settings[i]))
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// source says where a value comes from.
func source(s *config.Setting) string {
	from := s.From
	if s.Where != "" {
		from = s.Where
	} else if s.Value != s.Default {
		from = "follows from the others"
	}
	if s.Scope == config.ScopeCluster {
		from += "; of a new cluster"
	}
	return from
}
