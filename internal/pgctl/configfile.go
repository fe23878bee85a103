package pgctl

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// argsLocked returns the command line of a server that is to be started: that of
// the one that ran last, so that a configuration outside of the data directory
// is found again (Debian has it in /etc/postgresql).
func (i *Instance) argsLocked() ([]string, error) {
	if !i.cfg.Detached {
		return []string{"-D", i.cfg.Dir}, nil
	}
	if i.args == nil {
		saved, err := savedCommandLine(i.cfg.Dir)
		if err != nil {
			return nil, err
		}
		i.args = saved
	}
	given := parseArgs(i.args)
	// -D may name a directory that has postgresql.conf alone, which then names the
	// data directory. A relative path meant another working directory than ours.
	dir := given.dir
	if !filepath.IsAbs(dir) {
		dir = i.cfg.Dir
	}
	if file := given.configFile(); file != "" && !filepath.IsAbs(file) {
		return nil, fmt.Errorf("the server was started with the relative path %q as its config_file; start it once with an absolute one", file)
	}
	return append([]string{"-D", dir}, given.rest...), nil
}

// configFileLocked returns the postgresql.conf of the server.
func (i *Instance) configFileLocked() (string, error) {
	args, err := i.argsLocked()
	if err != nil {
		return "", err
	}
	given := parseArgs(args)
	if file := given.configFile(); file != "" {
		return file, nil
	}
	return filepath.Join(given.dir, "postgresql.conf"), nil
}

// serverArgs are the arguments of a server.
type serverArgs struct {
	dir  string            // of -D; "" if there is none
	rest []string          // all the others
	set  map[string]string // settings among them, with "_" for "-"
}

func (a serverArgs) configFile() string { return a.set["config_file"] }

// shortOptions are the options of the postgres program that set something and
// have a letter (PostmasterMain in postmaster.c).
var shortOptions = map[string]string{
	"-B": "shared_buffers", "-d": "log_min_messages", "-h": "listen_addresses", "-k": "unix_socket_directories",
	"-N": "max_connections", "-p": "port", "-S": "work_mem",
}

// parseArgs understands the options that PostmasterMain does.
func parseArgs(args []string) serverArgs {
	a := serverArgs{set: map[string]string{}}
	for n := 0; n < len(args); n++ {
		arg := args[n]
		letter, value := arg[:min(2, len(arg))], arg[min(2, len(arg)):]
		takesValue := letter == "-D" || letter == "-c" || shortOptions[letter] != ""
		from := n
		if takesValue && value == "" && n+1 < len(args) {
			n++
			value = args[n]
		}
		switch {
		case letter == "-D":
			a.dir = value
			continue
		case letter == "-c", letter == "--":
			name, value, _ := strings.Cut(value, "=")
			a.set[strings.ReplaceAll(name, "-", "_")] = value
		case takesValue:
			a.set[shortOptions[letter]] = value
		case letter == "-F":
			a.set["fsync"] = "off"
		}
		a.rest = append(a.rest, args[from:n+1]...)
	}
	a.rest = slices.Clip(a.rest)
	return a
}

// parseConf reads the lines "name = 'value'" of a file that a program wrote, as
// postgresql.auto.conf and ours are; the last one of a name counts.
func parseConf(text string) map[string]string {
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := parseConfLine(line); ok {
			settings[name] = value
		}
	}
	return settings
}

// parseConfLine reads one such line; false for one that sets nothing.
func parseConfLine(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(strings.TrimSpace(line), "=")
	name = strings.TrimSpace(name)
	if !ok || name == "" || strings.HasPrefix(name, "#") {
		return "", "", false
	}
	value = strings.TrimSpace(value)
	if quoted, isQuoted := strings.CutPrefix(value, "'"); isQuoted {
		value = unquoteConf.Replace(strings.TrimSuffix(quoted, "'"))
	}
	return name, value, true
}

// unquoteConf is the inverse of quoteConf.
var unquoteConf = strings.NewReplacer("''", "'", `\\`, `\`, `\'`, "'")
