package lint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// Module is the path of the module whose house this is.
const Module = "github.com/heliosdb/helios"

// A Package is what `go list -json` says of one, outside of its tests.
type Package struct {
	ImportPath string
	Standard   bool
	Imports    []string // as written in its files
	Deps       []string // everything that is compiled with it
}

// Packages lists the module at root and all that its packages are compiled with.
func Packages(ctx context.Context, root string) ([]Package, error) {
	// -e: a package that does not build has imports nevertheless.
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var packages []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages = append(packages, p)
	}
}

// An Edge is a direction in which nobody may import. Paths that begin with "./"
// are inside the module; one that ends in "/..." means everything below too.
type Edge struct {
	From   []string // the packages that are held to it
	Except []string // and of those not these
	Never  []string // what must not be compiled with them
	Direct bool     // only what they import themselves counts
	Only   []string // if set: of other modules, and of this one, only these and what they need
	Why    string
}

// Edges are the walls of the house.
func Edges() []Edge {
	driver := []string{".", "./router", "./pool", "./topology", "./topology/watch", "./lag", "./wal"}
	return []Edge{
		{
			From: driver,
			Never: []string{
				"github.com/hashicorp/...", "github.com/pierrec/...", "github.com/prometheus/...", "github.com/caio/...", "./lag/stats/...",
				"./server/...", "./failover/...", "./wal/relay/...", "./internal/pgctl/...",
			},
			Why: "an application that opens a database must not compile the companion server, its consensus, compression or metrics",
		},
		{
			From:  driver,
			Never: []string{"github.com/testcontainers/...", "github.com/docker/...", "github.com/moby/...", "./internal/pgtest/...", "./internal/pgfake/...", "./internal/pgcanned/...", "./internal/walfake/...", "./internal/watchfake/...", "./internal/apifake/...", "./internal/memnet/...", "./internal/openapi/...", "testing"},
			Why:   "what tests need stays in tests: an application must not compile it",
		},
		{
			From:   driver,
			Direct: true,
			Never:  []string{"github.com/jackc/pgx/v5/pgxpool", "github.com/jackc/pgx/v5/stdlib"},
			Why:    "the driver has its own pools and its own loop over the protocol (docs/adr/0003)",
		},
		{
			From: []string{"./..."}, Except: []string{"./internal/pgtest/container"},
			Direct: true,
			Never:  []string{"github.com/testcontainers/...", "github.com/docker/...", "github.com/moby/..."},
			Why:    "only internal/pgtest/container knows that containers exist",
		},
		{
			From:  []string{"./cmd/..."},
			Never: []string{"github.com/testcontainers/...", "github.com/docker/...", "github.com/moby/..."},
			Why:   "the binary makes its clusters of local programs; a container engine is a matter for tests",
		},
		{
			From: []string{"./..."}, Except: []string{"./failover/consensus"},
			Direct: true,
			Never:  []string{"github.com/hashicorp/...", "go.etcd.io/..."},
			Why:    "only failover/consensus knows by which library companions agree (docs/adr/0013)",
		},
		{
			From:  []string{"./server/api", "./server/client"},
			Never: []string{"github.com/hashicorp/...", "./failover/consensus/...", "./server", "./server/agent/...", "./internal/pgctl/...", "./internal/apifake/..."},
			Why:   "the API speaks of a cluster to whoever asks; how one is run stays behind api.Cluster, so that a tool compiles none of it",
		},
		{
			From: []string{"./wal"}, Only: []string{},
			Why: "wal is the words that driver and server share: the standard library only",
		},
		{
			From: []string{"./topology"}, Only: []string{"./lag", "./wal"},
			Why: "topology is the words that driver and server share: the standard library, wal, and the pure history that lag is read from",
		},
		{
			From: []string{"./router", "./failover"}, Only: []string{"./topology", "./wal"},
			Why: "a decision is values in, values out: whoever needs a connection for it belongs elsewhere",
		},
		{
			From: []string{"./lag"}, Only: []string{"./wal"},
			Why: "lag is arithmetic on positions and times: whoever asks a node for them belongs elsewhere",
		},
		{
			From: []string{"./lag/stats"}, Only: []string{"./lag", "./wal", "./internal/beat", "github.com/caio/go-tdigest/v4"},
			Why: "lag/stats is arithmetic too, with a library for quantiles that the driver does without",
		},
		{
			From:  []string{"./pool"},
			Never: []string{".", "./router/...", "./topology/watch/...", "./lag/...", "./server/..."},
			Why:   "a pool knows connections to one node: what a statement is and where it goes is decided above it",
		},
		{
			From:   []string{"./router", "./failover"},
			Direct: true,
			Never:  []string{"net", "net/http", "os", "os/exec", "database/sql"},
			Why:    "decisions do no I/O, so that they can be tested in microseconds and replayed: sockets and files belong to the hands around them",
		},
	}
}

// CheckEdges finds every import that one of edges forbids.
func CheckEdges(packages []Package, edges []Edge) []Finding {
	byPath := map[string]Package{}
	for _, p := range packages {
		byPath[p.ImportPath] = p
	}
	var findings []Finding
	for _, p := range packages {
		for _, e := range edges {
			if !matches(p.ImportPath, e.From) || matches(p.ImportPath, e.Except) {
				continue
			}
			for _, dep := range e.broken(p, byPath) {
				findings = append(findings, Finding{File: p.ImportPath, Text: fmt.Sprintf("imports %s: %s", route(byPath, p.ImportPath, dep), e.Why)})
			}
		}
	}
	return sorted(findings)
}

// broken returns what p must not be compiled with by e.
func (e Edge) broken(p Package, byPath map[string]Package) []string {
	deps := p.Deps
	if e.Direct {
		deps = p.Imports
	}
	allowed := func(dep string) bool {
		if matches(dep, e.Never) {
			return false
		}
		if e.Only == nil || matches(dep, e.Only) || byPath[dep].Standard || dep == "C" || dep == "unsafe" {
			return true
		}
		return slices.ContainsFunc(packagesIn(byPath, e.Only), func(via Package) bool { return slices.Contains(via.Deps, dep) })
	}
	return slices.DeleteFunc(slices.Clone(deps), allowed)
}

// packagesIn returns the packages that patterns name.
func packagesIn(byPath map[string]Package, patterns []string) []Package {
	var found []Package
	for name, p := range byPath {
		if matches(name, patterns) {
			found = append(found, p)
		}
	}
	return found
}

// route is the shortest chain of imports from one package to another, without
// the first one.
func route(byPath map[string]Package, from, to string) string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		here := queue[0]
		if here == to {
			var chain []string
			for at := to; at != from; at = before[at] {
				chain = append(chain, at)
			}
			slices.Reverse(chain)
			return strings.Join(chain, " → ")
		}
		for _, next := range byPath[here].Imports {
			if _, seen := before[next]; !seen {
				before[next] = here
				queue = append(queue, next)
			}
		}
	}
	return to
}

// matches reports whether one of patterns names the package at importPath.
func matches(importPath string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		switch {
		case pattern == ".":
			pattern = Module
		case strings.HasPrefix(pattern, "./"):
			pattern = Module + pattern[1:]
		}
		tree, below := strings.CutSuffix(pattern, "/...")
		return importPath == tree || below && strings.HasPrefix(importPath, tree+"/")
	})
}
