package histcheck

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Registers takes down reads and writes of numbered values, each of which starts
// as 0. It is safe for concurrent use.
type Registers struct {
	start time.Time

	mu  sync.Mutex
	ops []porcupine.Operation // guarded by mu
}

// NewRegisters returns empty ones.
func NewRegisters() *Registers { return &Registers{start: time.Now()} }

type (
	registerInput struct {
		register int
		write    bool
		value    int64
	}
	registerOutput struct {
		value   int64
		unknown bool
	}
)

// An Op is one operation under way.
type Op struct {
	r      *Registers
	client int
	in     registerInput
	call   int64
}

// Read begins a read.
func (r *Registers) Read(client, register int) Op {
	return Op{r, client, registerInput{register: register}, r.now()}
}

// Write begins a write.
func (r *Registers) Write(client, register int, value int64) Op {
	return Op{r, client, registerInput{register, true, value}, r.now()}
}

func (r *Registers) now() int64 { return time.Since(r.start).Nanoseconds() }

// Done takes down that the operation succeeded; value is what a read saw.
func (o Op) Done(value int64) { o.end(registerOutput{value: value}, o.r.now()) }

// Unknown takes down that a write may happen at any time from its beginning on, or
// never. A failed read need not be taken down, nor a write that surely did not
// happen.
func (o Op) Unknown() { o.end(registerOutput{unknown: true}, math.MaxInt64) }

func (o Op) end(out registerOutput, at int64) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	o.r.ops = append(o.r.ops, porcupine.Operation{ClientId: o.client, Input: o.in, Output: out, Call: o.call, Return: at})
}

// model is a number of registers, each on its own.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make(map[int][]porcupine.Operation)
		for _, op := range history {
			k := op.Input.(registerInput).register
			parts[k] = append(parts[k], op)
		}
		var all [][]porcupine.Operation
		for _, part := range parts {
			all = append(all, part)
		}
		return all
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		in, out := input.(registerInput), output.(registerOutput)
		if in.write {
			return true, in.value
		}
		return out.value == state.(int64), state
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(registerInput), output.(registerOutput)
		if in.write {
			return fmt.Sprintf("%d := %d", in.register, in.value)
		}
		return fmt.Sprintf("%d is %d", in.register, out.value)
	},
}

// Check reports whether everything could have happened one after the other, each
// operation at some moment between its beginning and its end. If not, or if it takes
// longer than limit to find out, the error says so; a picture of it goes to path unless
// that is empty.
func (r *Registers) Check(limit time.Duration, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	result, info := porcupine.CheckOperationsVerbose(model, r.ops, limit)
	if result == porcupine.Ok {
		return nil
	}
	err := fmt.Errorf("%d operations are not linearizable", len(r.ops))
	if result == porcupine.Unknown {
		err = fmt.Errorf("it could not be found out within %v whether %d operations are linearizable", limit, len(r.ops))
	}
	if path != "" {
		if e := porcupine.VisualizePath(model, info, path); e != nil {
			return fmt.Errorf("%w; no picture of it: %w", err, e)
		}
		err = fmt.Errorf("%w; a picture is in %s", err, path)
	}
	return err
}
