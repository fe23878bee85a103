package config

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/heliosdb/helios/failover/consensus"
	"github.com/heliosdb/helios/internal/spelling"
)

// envPrefix begins the name of the environment variable of each key.
const envPrefix = "HELIOS_"

// Where a value came from.
const (
	FromDefault     = "default"
	FromFile        = "file"
	FromEnvironment = "environment"
	FromFlag        = "flag"
)

// A Setting is the value of one key, and where it came from.
type Setting struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Default string `json:"default"`
	From    string `json:"from"`            // default, file, environment or flag
	Where   string `json:"where,omitempty"` // such as helios.conf:12, HELIOS_LEASE or --lease
	Scope   Scope  `json:"scope"`
	Help    string `json:"help"`
}

// Line returns the setting as a line of the file.
func (s *Setting) Line() string { return s.Name + " = " + quote(s.Value) }

// An Effective is a configuration, and how it came to be.
type Effective struct {
	Config   Config
	Settings []Setting // of every key, in the order of Keys
	Warnings []string  // what is allowed, and probably not meant
}

// A Loader gathers what flags, environment and file say. It is made by
// [Register].
type Loader struct {
	file  string
	given map[string]string // by flags
}

// Register declares a flag for every key, and --config for the file. What they are
// given is checked at once, and used by Load.
func Register(fs *flag.FlagSet) *Loader {
	l := &Loader{given: map[string]string{}}
	fs.StringVar(&l.file, "config", "", "`FILE` in the syntax of postgresql.conf; HELIOS_CONFIG names it too")
	checked := Default()
	for _, k := range checked.keys() {
		fs.Var(&given{Value: k.value, key: k, loader: l}, k.name, k.usage())
	}
	return l
}

// usage is how a flag explains itself.
func (k key) usage() string {
	if strings.Contains(k.values, " | ") {
		return k.help + ": " + k.values
	}
	return k.help
}

// given is a flag that remembers its text for Load.
type given struct {
	flag.Value

	key    key
	loader *Loader
}

// String implements [flag.Value]; package flag asks the zero value too.
func (g *given) String() string {
	if g.Value == nil {
		return ""
	}
	return g.Value.String()
}

// Set implements [flag.Value].
func (g *given) Set(s string) error {
	if err := g.Value.Set(s); err != nil {
		return err
	}
	g.loader.given[g.key.name] = s
	return nil
}

// IsBoolFlag lets the flag stand without a value, for on.
func (g *given) IsBoolFlag() bool {
	b, is := g.Value.(interface{ IsBoolFlag() bool })
	return is && b.IsBoolFlag()
}

// Placeholder is what stands for the value where the flag is explained.
func (g *given) Placeholder() string {
	switch g.Value.(type) {
	case *boolean:
		return ""
	case *integer:
		return "N"
	case *duration:
		return "TIME"
	case size[int], size[int64], size[uint64]:
		return "SIZE"
	case *list:
		return "LIST"
	default:
		return "VALUE"
	}
}

// Load reads the file and the environment, given as os.Environ does, and returns
// what is to be used. An error says where the value that it is about stands.
func (l *Loader) Load(environ []string) (*Effective, error) {
	env := environment(environ)
	e := &Effective{Config: Default()}
	sources := map[string]Setting{}
	file, err := readFile(cmp.Or(l.file, env["CONFIG"]))
	if err != nil {
		return nil, err
	}
	keys := e.Config.keys()
	for _, k := range keys {
		s := Setting{Name: k.name, Default: k.value.String(), From: FromDefault, Scope: k.scope, Help: k.help}
		if err := s.take(k, file, env, l.given); err != nil {
			return nil, err
		}
		sources[k.name] = s
	}
	e.Config.derive()
	for _, k := range keys {
		s := sources[k.name]
		s.Value = k.value.String()
		e.Settings = append(e.Settings, s)
	}
	e.Warnings = append(misspelled(env), e.warnings()...)
	return e, e.Config.Check()
}

// take sets k to what the strongest of the sources says.
func (s *Setting) take(k key, file map[string]located, env, flags map[string]string) error {
	text, found := flags[k.name]
	variable := strings.ToUpper(k.name)
	switch {
	case found:
		s.From, s.Where = FromFlag, "--"+k.name
	case env[variable] != "":
		s.From, s.Where, text = FromEnvironment, envPrefix+variable, env[variable]
	case file[k.name].where != "":
		s.From, s.Where, text = FromFile, file[k.name].where, file[k.name].value
	default:
		return nil
	}
	if err := k.value.Set(text); err != nil {
		return fmt.Errorf("%s: %s: %w", s.Where, k.name, err)
	}
	return nil
}

// environment returns the variables of helios that have a value, without the
// prefix.
func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if name, is := strings.CutPrefix(name, envPrefix); is && value != "" {
			env[name] = value
		}
	}
	return env
}

// located is a value in a file.
type located struct{ value, where string }

// readFile returns what a file says of each key; nothing if it has no name.
func readFile(name string) (map[string]located, error) {
	if name == "" {
		return nil, nil
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	entries, err := parseFile(string(content))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	found := map[string]located{}
	for _, e := range entries {
		where := fmt.Sprintf("%s:%d", name, e.line)
		if !slices.Contains(names(), e.name) {
			return nil, fmt.Errorf("%s: %w", where, unknown(e.name))
		}
		found[e.name] = located{value: e.value, where: where}
	}
	return found, nil
}

// names are those of all keys.
func names() []string {
	var all []string
	for _, k := range Keys() {
		all = append(all, k.Name)
	}
	return all
}

// unknown says that there is no such key, and which one may have been meant.
func unknown(name string) error {
	if near := nearest(name, 2); near != "" {
		return fmt.Errorf("there is no key %q; did you mean %s?", name, near)
	}
	return fmt.Errorf("there is no key %q; helios config lists them", name)
}

// nearest returns the key that a slip of the finger turns into name: where one letter
// of so many is another. It returns "" if there is none.
func nearest(name string, letters int) string {
	near := slices.MinFunc(names(), func(a, b string) int {
		return cmp.Compare(spelling.Distance(name, a), spelling.Distance(name, b))
	})
	if spelling.Distance(name, near) > max(1, min(len(name), len(near))/letters) {
		return ""
	}
	return near
}

// misspelled warns of variables that resemble one of ours. Others are left alone:
// the environment belongs to everybody.
func misspelled(env map[string]string) []string {
	var warnings []string
	for name := range env {
		key := strings.ToLower(name)
		if near := nearest(key, 3); near != "" && near != key && !strings.HasPrefix(name, "TEST_") {
			warnings = append(warnings, fmt.Sprintf("%s%s is not used; did you mean %s%s?", envPrefix, name, envPrefix, strings.ToUpper(near)))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// warnings are about what is allowed, and probably not meant.
func (e *Effective) warnings() []string {
	var warnings []string
	for _, s := range e.Settings {
		if s.Scope == ScopeCluster && s.From != FromDefault && len(e.Config.Join) > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %s is a matter of the whole cluster, and is not used with join; helios settings set %s=%s changes it", s.Where, s.Name, s.Name, s.Value))
		}
	}
	return append(warnings, e.Config.leaseWarnings()...)
}

// leaseWarnings are about leases that end without need.
func (c *Config) leaseWarnings() []string {
	var warnings []string
	if lease := c.Settings.Lease; lease < shortLease {
		warnings = append(warnings, fmt.Sprintf("lease is %s: below %s a machine that is merely busy may lose it", formatDuration(lease), formatDuration(shortLease)))
	}
	timings, err := consensus.TimingsOf(string(c.Network))
	if needed := heartbeatsPerLease * timings.Heartbeat; err == nil && c.Settings.Lease < needed {
		warnings = append(warnings, fmt.Sprintf("lease is %s: with network = %s a leader that is lost may take longer to be replaced, and commits wait meanwhile; %s is enough",
			formatDuration(c.Settings.Lease), c.Network, formatDuration(needed)))
	}
	return warnings
}

// ReadToken reads the token in a file that nobody else may read.
func ReadToken(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("token: %s can be read by everybody; chmod 600 it", file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("token: %s does not hold one word; openssl rand -hex 32 makes a good one", file)
	}
	return token, nil
}
