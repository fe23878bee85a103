package pgctl

import (
	"context"
	"path/filepath"
)

// toolParent names the environment variable that makes this program a process that
// runs a tool in a directory, instead of a run of tests.
const toolParent = "HELIOS_TEST_TOOL_PARENT"

// slowTool is an initdb that never ends, with a child that does not hear of the death
// of anybody, as a recovery has that is under way.
const slowTool = `#!/bin/sh
sh -c 'echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 600' "$2.child" &
echo $$ >"$2.new"
mv "$2.new" "$2.tool"
wait
`

// slow describes a server in dir whose initdb is slowTool.
func slow(dir string) (*Instance, error) {
	return New(Config{Binaries: Binaries{Dir: dir, Version: 150000}, Dir: filepath.Join(dir, "data"), Detached: true})
}

// runTool is what the process does that toolParent makes.
func runTool(dir string) error {
	i, err := slow(dir)
	if err != nil {
		return err
	}
	return i.Init(context.Background())
}
