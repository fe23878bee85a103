package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/story"
	"github.com/heliosdb/helios/wal"
)

// TestStories plays testdata/*.txt, as package story does: what happens, and what
// the board then shows. What happens is one of
//
//	nodes db1 db2 …            a new board
//	wait 1s
//	db1 primary|replica key=value …
//	db1 down why …
//	doubt db1 why …            why begins with a SQLSTATE if it is the server's
//	add db4
//	remove db1
//	bulletin epoch=2 phase=ready primary=db2 … | db1 replica key=value … | …
//	unheard                    no companion is heard any more
//
// where the keys are id, tli, lsn (written or replayed), proven, received,
// switch, started, rtt, age (how long ago the answer came) and the word ro. A
// bulletin's own are epoch, phase, primary, id, tli, switch and the word hold; a
// node's in it are lsn, received, tli, started, state, addr and lag.
func TestStories(t *testing.T) {
	story.Tell(t, func(t *testing.T, file string) {
		synctest.Test(t, func(t *testing.T) {
			s := &stage{t: t, file: file}
			story.Play(t, file, func(lines []string) string {
				for _, line := range lines {
					s.happen(line)
				}
				return s.shows()
			})
		})
	})
}

// A stage is where one story is played.
type stage struct {
	t     *testing.T
	file  string
	board *Board
}

func (s *stage) happen(line string) {
	words := strings.Fields(line)
	rest := strings.Join(words[min(2, len(words)):], " ")
	switch words[0] {
	case "nodes":
		var nodes []Node
		for _, name := range words[1:] {
			nodes = append(nodes, Node{Name: name})
		}
		s.board = NewBoard(nodes...)
	case "wait":
		d, err := time.ParseDuration(words[1])
		s.must(line, err)
		time.Sleep(d)
	case "doubt":
		s.board.Doubt(words[1], failure(rest))
	case "add":
		s.must(line, s.board.Add(Node{Name: words[1]}))
	case "remove":
		s.must(line, s.board.Remove(words[1]))
	case "bulletin":
		s.announce(line)
	case "unheard":
		s.board.Unheard()
	default:
		s.observe(line, words[0], words[1], words[2:])
	}
}

func (s *stage) must(line string, err error) {
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.file, line, err)
	}
}

// A sqlError is what a server answers.
type sqlError struct{ code, text string }

func (e *sqlError) Error() string    { return e.text + " (SQLSTATE " + e.code + ")" }
func (e *sqlError) SQLState() string { return e.code }

func failure(why string) error {
	code, text, _ := strings.Cut(why, " ")
	if len(code) == 5 {
		return fmt.Errorf("write: %w", &sqlError{code, text})
	}
	return errors.New(why)
}

func (s *stage) observe(line, node, what string, words []string) {
	o := Observation{Node: node, At: time.Now(), SystemID: 7, Timeline: 1}
	switch what {
	case "down", "stopped":
		o.Err = errors.New(strings.Join(words, " "))
		if what == "stopped" { // as net.Dial says it
			o.Err = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}
		s.board.Observe(o)
		return
	case "primary":
		o.Role = RolePrimary
	case "replica":
		o.Role = RoleReplica
	default:
		s.t.Fatalf("%s: cannot play %q", s.file, line)
	}
	for _, word := range words {
		s.must(line, o.set(word))
	}
	if o.Role == RolePrimary {
		o.CurrentLSN, o.ReplayLSN = o.ReplayLSN, 0
	}
	s.board.Observe(o)
}

// set sets the field that a word such as tli=2 speaks of.
func (o *Observation) set(word string) error {
	key, value, _ := strings.Cut(word, "=")
	number, notNumber := strconv.ParseUint(value, 10, 64)
	position, notLSN := wal.ParseLSN("0/" + value)
	span, notSpan := time.ParseDuration(value)
	switch key {
	case "ro":
		o.ReadOnly = true
	case "id":
		o.SystemID = number
		return notNumber
	case "tli":
		o.Timeline = wal.Timeline(number)
		return notNumber
	case "started":
		o.StartedAt = time.Unix(int64(number), 0)
		return notNumber
	case "lsn":
		o.ReplayLSN = position
		return notLSN
	case "proven":
		o.TimelineLSN = position
		return notLSN
	case "received":
		o.ReceiveLSN = position
		return notLSN
	case "switch":
		o.SwitchLSN = position
		return notLSN
	case "rtt":
		o.RTT = span
		return notSpan
	case "age":
		o.At = o.At.Add(-span)
		return notSpan
	default:
		return fmt.Errorf("%q is no key", key)
	}
	return nil
}

// announce puts a bulletin on the board, as a companion would have written it.
func (s *stage) announce(line string) {
	b := &Bulletin{SystemID: 7, Epoch: 1, Phase: "ready", Timeline: 1}
	head, nodes, _ := strings.Cut(line, "|")
	for _, word := range strings.Fields(head)[1:] {
		s.must(line, b.set(word))
	}
	for text := range strings.SplitSeq(nodes, "|") {
		words := strings.Fields(text)
		if len(words) < 2 {
			continue
		}
		r := Reported{Name: words[0], Addr: words[0], Role: words[1], State: "up", Timeline: b.Timeline, Lag: -1}
		for _, word := range words[2:] {
			s.must(line, r.set(word))
		}
		b.Nodes = append(b.Nodes, r)
	}
	text, err := json.Marshal(b)
	s.must(line, err)
	heard := new(Bulletin)
	s.must(line, json.Unmarshal(text, heard))
	s.board.Announce(heard, time.Now())
}

// set sets the field that a word such as epoch=2 speaks of.
func (b *Bulletin) set(word string) error {
	key, value, _ := strings.Cut(word, "=")
	number, notNumber := strconv.ParseUint(value, 10, 64)
	switch key {
	case "hold":
		b.Hold = true
	case "phase":
		b.Phase = value
	case "primary":
		b.Primary = value
	case "epoch":
		b.Epoch = number
		return notNumber
	case "id":
		b.SystemID = number
		return notNumber
	case "tli":
		b.Timeline = wal.Timeline(number)
		return notNumber
	case "switch":
		lsn, err := wal.ParseLSN("0/" + value)
		b.History = wal.History{{Timeline: b.Timeline, LSN: lsn}}
		return err
	default:
		return fmt.Errorf("%q is no key of a bulletin", key)
	}
	return nil
}

// set sets the field that a word such as lsn=100 speaks of.
func (r *Reported) set(word string) error {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "state":
		r.State = value
		return nil
	case "addr":
		r.Addr = value
		return nil
	case "lag":
		lag, err := time.ParseDuration(value)
		r.Lag = lag
		return err
	default:
		var o Observation
		err := o.set(word)
		r.ReplayLSN, r.ReceiveLSN = max(r.ReplayLSN, o.ReplayLSN), max(r.ReceiveLSN, o.ReceiveLSN)
		if o.Timeline != 0 {
			r.Timeline = o.Timeline
		}
		if !o.StartedAt.IsZero() {
			r.StartedAt = o.StartedAt
		}
		if r.Role == "primary" {
			r.CurrentLSN, r.ReplayLSN = max(r.CurrentLSN, r.ReplayLSN), 0
		}
		return err
	}
}

// shows describes the newest view.
func (s *stage) shows() string {
	v := s.board.Peek()
	var b strings.Builder
	name := func(i int) string {
		if i < 0 {
			return "none"
		}
		return v.Nodes[i].Name
	}
	fmt.Fprintf(&b, "primary %s, last %s, cluster %d, timeline %s", name(v.Primary), name(v.LastPrimary), v.SystemID, v.Timeline)
	for _, h := range v.History {
		fmt.Fprintf(&b, ", %s from %s", h.Timeline, h.LSN)
	}
	if v.Split {
		b.WriteString(", split")
	}
	if !v.Settled {
		b.WriteString(", not settled")
	}
	v.Told.show(&b)
	b.WriteByte('\n')
	for i := range v.Nodes {
		n := &v.Nodes[i]
		fmt.Fprintf(&b, "%s %s %s", n.Name, n.State, n.Role)
		if n.Role == RoleReplica && n.State != StateDown {
			fmt.Fprintf(&b, " lag=%v behind=%d", n.Lag, n.Behind)
		}
		if v.Told.Epoch != 0 {
			fmt.Fprintf(&b, " tli=%s lsn=%s", n.Timeline, n.ReplayLSN)
		}
		if n.Reason != "" {
			fmt.Fprintf(&b, ": %s", n.Reason)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// show describes what companions say.
func (a Announcement) show(b *strings.Builder) {
	if a.Epoch == 0 {
		return
	}
	fmt.Fprintf(b, ", epoch %d", a.Epoch)
	if !a.Heard {
		b.WriteString(" unheard")
	}
	if a.Hold {
		b.WriteString(" on hold")
	}
	if reigns := a.Primary + a.Stranger; reigns != "" {
		fmt.Fprintf(b, " of %s", reigns)
	}
}
