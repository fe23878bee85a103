package walbench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"
)

// Environment variables of a child process.
const (
	roleVariable    = "HELIOS_WALBENCH_ROLE"    // relay or drain; what it is to do comes by its input
	profileVariable = "HELIOS_WALBENCH_PROFILE" // a directory for CPU profiles of the relays
)

// A role is what a child process is. It answers requests until its input ends.
type role interface {
	// answer does what one request says.
	answer(ctx context.Context, request json.RawMessage) (any, error)
	// close ends what goes on between requests.
	close() error
}

// Child does the work of a process that a benchmark has started, and reports
// whether this is one. It has to be called before anything else that main does.
func Child() (code int, is bool) {
	var r role
	switch os.Getenv(roleVariable) {
	case "relay":
		r = &relayRole{}
	case "drain":
		r = &drainRole{}
	default:
		return 0, false
	}
	if err := serveRole(context.Background(), r, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "walbench:", err)
		return 1, true
	}
	return 0, true
}

// reply is the answer to one request.
type reply struct {
	Error string          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// serveRole answers line after line until there is no more.
func serveRole(ctx context.Context, r role, in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(in)
	answers := json.NewEncoder(out)
	for {
		var request json.RawMessage
		if err := lines.Decode(&request); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, r.close())
		}
		body, err := r.answer(ctx, request)
		var a reply
		if err != nil {
			a.Error = err.Error()
		} else if a.Body, err = json.Marshal(body); err != nil {
			return errors.Join(err, r.close())
		}
		if err := answers.Encode(a); err != nil {
			return errors.Join(err, r.close())
		}
	}
}

// A child is a process that this one has started. Its methods are for one
// goroutine at a time.
type child struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
	said *tail // what it wrote to its standard error

	ended sync.Once
	err   error
}

// startChild starts this program again in a role.
func startChild(name, as string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, said: &tail{}}
	c.cmd = exec.Command(self) //nolint:noctx // it ends when its input does
	c.cmd.Env = append(append(os.Environ(), roleVariable+"="+as), env...)
	c.cmd.Stderr = c.said
	// Ctrl-C is ours alone: the child ends when we have cleaned up.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = json.NewDecoder(bufio.NewReader(out))
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// pid returns the process's number.
func (c *child) pid() int { return c.cmd.Process.Pid }

// ask sends a request and reads the answer into body, unless that is nil. If ctx
// ends the child is ended.
func (c *child) ask(ctx context.Context, request, body any) error {
	stop := context.AfterFunc(ctx, func() { c.cmd.Process.Kill() }) //nolint:errcheck // it has ended already
	defer stop()
	fail := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w%s", c.name, err, c.said.last())
	}
	if err := json.NewEncoder(c.in).Encode(request); err != nil {
		return fail(err)
	}
	var a reply
	if err := c.out.Decode(&a); err != nil {
		return fail(err)
	}
	if a.Error != "" {
		return fail(errors.New(a.Error))
	}
	if body == nil {
		return nil
	}
	return json.Unmarshal(a.Body, body)
}

// freeze makes the process stand still, thaw lets it go on.
func (c *child) freeze() error { return c.cmd.Process.Signal(syscall.SIGSTOP) }
func (c *child) thaw() error   { return c.cmd.Process.Signal(syscall.SIGCONT) }

// farewellTimeout is how long a child has to end in order.
const farewellTimeout = 10 * time.Second

// close ends the process. It may be called more than once.
func (c *child) close() error {
	c.ended.Do(func() {
		c.thaw()     //nolint:errcheck // it has ended already
		c.in.Close() //nolint:errcheck // it has ended already
		late := time.AfterFunc(farewellTimeout, func() { c.cmd.Process.Kill() })
		defer late.Stop()
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("%s: %w%s", c.name, err, c.said.last())
		}
	})
	return c.err
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

// tailSize is how much of it is kept.
const tailSize = 2000

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailSize; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// last returns what was written last, as the rest of an error's text.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text) == 0 {
		return ""
	}
	return ": " + string(t.text)
}

// startProfile writes a CPU profile of this process if the environment asks for
// it. The function it returns ends that.
func startProfile(name string) (stop func(), err error) {
	dir := os.Getenv(profileVariable)
	if dir == "" {
		return func() {}, nil
	}
	f, err := os.Create(fmt.Sprintf("%s/%s-%d.pprof", dir, name, os.Getpid()))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close() //nolint:errcheck // a profile that is cut short is no loss
	}, nil
}
