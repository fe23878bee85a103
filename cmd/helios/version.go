package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// versionCommand says what this binary was built from.
func versionCommand() command {
	return command{
		name:    "version",
		summary: "say what this binary was built from",
		about:   "The revision is known if the binary was built inside a checkout of its sources.",
		flags: func(fs *flag.FlagSet) action {
			asJSON := fs.Bool("json", false, "print a JSON object")
			return func(_ context.Context, s streams, args []string) error {
				if len(args) > 0 {
					return usageError("version: takes no arguments", "helios help version")
				}
				return buildOf(debug.ReadBuildInfo()).write(s.out, *asJSON)
			}
		},
	}
}

// build is what a binary was built from.
type build struct {
	Version  string `json:"version"`            // of the module; (devel) if not built from a release
	Revision string `json:"revision,omitempty"` // of the checkout
	Modified bool   `json:"modified,omitempty"` // the checkout had changes of its own
	Time     string `json:"time,omitempty"`     // of the revision, RFC 3339
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

// buildOf reads what the linker has left; ok is false if it left nothing.
func buildOf(info *debug.BuildInfo, ok bool) build {
	b := build{Version: "(unknown)", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		case "vcs.time":
			b.Time = setting.Value
		}
	}
	return b
}

// write puts b on one line.
func (b build) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(b)
	}
	revision := ""
	if b.Revision != "" {
		revision = " revision " + b.Revision[:min(len(b.Revision), 12)]
	}
	if b.Modified {
		revision += " with changes"
	}
	_, err := fmt.Fprintf(w, "helios %s%s, %s on %s/%s\n", b.Version, revision, b.Go, b.OS, b.Arch)
	return err
}
