package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/wal"
)

// walDumpCommand prints what stands in the log.
func walDumpCommand() command {
	return command{
		name:    "wal dump",
		args:    "FILE... | DIRECTORY | DSN",
		summary: "print the records of the log, as pg_waldump does",
		about: `FILEs are segments, in the order of the log. A DIRECTORY is a server's pg_wal, or
the one it is in; of two timelines the newer is read. With a DSN, such as
helios://app@db1,db2/shop or postgres://…, the log comes over the replication
protocol from the first node that answers, up to what it has flushed by then; the
role needs REPLICATION. Relations then have the names that they have now, where the
role may connect to their database.

A line has what pg_waldump's line has, but for the details behind the operation.
PostgreSQL 13 to 18 are understood. Where the log ends, and how that is known, is
told on the standard error; the exit code is 1 if it is damaged.`,
		flags: func(fs *flag.FlagSet) action {
			d := &walDump{}
			fs.TextVar(&d.from, "from", wal.LSN(0), "`LSN` of the first record (where the log begins; with a DSN, its newest segment)")
			fs.TextVar(&d.to, "to", wal.LSN(0), "`LSN` that all records begin before (where the log ends)")
			fs.IntVar(&d.limit, "limit", 0, "`N` records at most (all)")
			fs.BoolVar(&d.asJSON, "json", false, "print a JSON object for each record")
			fs.BoolVar(&d.follow, "follow", false, "go on with what is written later; takes a DSN")
			return d.run
		},
	}
}

// walDump is one run of the command.
type walDump struct {
	from, to       wal.LSN // 0 if not given
	limit          int
	asJSON, follow bool

	printed int
	out     *bufio.Writer
	names   relationNames // nil without a catalog
}

// A logSource yields a log from a position on.
type logSource interface {
	io.ReadCloser
	// Start returns where the first byte that Read returns is in the log.
	Start() wal.LSN
}

// run opens the log and prints it.
func (d *walDump) run(ctx context.Context, s streams, args []string) (err error) {
	if err := d.check(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	d.out = bufio.NewWriterSize(s.out, 64<<10)
	source, err := d.open(ctx, s, args)
	if err == nil {
		err = d.print(ctx, s, source)
		err = errors.Join(err, source.Close(), d.out.Flush())
	}
	if d.names != nil {
		d.names.Close()
	}
	switch {
	case ctx.Err() != nil:
		return &failure{code: exitInterrupted, err: errors.New("wal dump: interrupted")}
	case errors.Is(err, syscall.EPIPE): // as with head, who has seen enough
		return nil
	}
	return d.failed(err)
}

// check refuses a command line that makes no dump.
func (d *walDump) check(args []string) error {
	dsn := len(args) == 1 && isDSN(args[0])
	var what string
	switch {
	case len(args) == 0:
		what = "want files, a directory or a DSN"
	case d.follow && !dsn:
		what = "--follow takes a DSN: files do not tell what is written to them"
	case d.limit < 0:
		what = "--limit must not be less than 0"
	case d.to != 0 && d.to < d.from:
		what = "--to is before --from"
	case d.follow && d.to != 0:
		what = "--follow has no end, and --to is one"
	case !dsn && slices.ContainsFunc(args, isDSN):
		what = "a DSN stands alone"
	default:
		return nil
	}
	return usageError("wal dump: "+what, "helios help wal dump")
}

// isDSN reports whether an argument names a server and not a file.
func isDSN(arg string) bool { return strings.Contains(arg, "://") }

// open returns the log that args name.
func (d *walDump) open(ctx context.Context, s streams, args []string) (logSource, error) {
	if !isDSN(args[0]) {
		return openFiles(args, d.from)
	}
	cfg, err := helios.ParseDSN(args[0])
	if err != nil {
		return nil, &failure{code: exitUsage, err: plain(err), hint: "helios help wal dump"}
	}
	stream, err := openStream(ctx, cfg, d.from, d.follow)
	if err != nil {
		return nil, err
	}
	d.names = newCatalog(ctx, cfg, stream.host, func(err error) {
		fmt.Fprintf(s.err, "wal dump: relations have no names: %v\n", err)
	})
	return stream, nil
}

// print writes the records that were asked for.
func (d *walDump) print(ctx context.Context, s streams, source logSource) error {
	r := wal.NewReader(source, source.Start())
	for d.limit == 0 || d.printed < d.limit {
		if d.follow && !r.Buffered() {
			if err := d.out.Flush(); err != nil {
				return err
			}
		}
		record, err := r.Read()
		switch {
		case err != nil:
			return d.ended(s, r, err)
		case d.to != 0 && record.LSN >= d.to:
			return nil
		case record.LSN < d.from:
			continue
		}
		d.printed++
		if err := d.printRecord(ctx, record); err != nil {
			return err
		}
	}
	return nil
}

// ended says how the log ended. A plain end is what one expects.
func (d *walDump) ended(s streams, r *wal.Reader, err error) error {
	end, plainly := errors.AsType[*wal.EndError](err)
	switch {
	case plainly:
		fmt.Fprintf(s.err, "wal dump: the log ends at %s: %s\n", end.LSN, end.Reason)
	case errors.Is(err, io.ErrUnexpectedEOF):
		at, _ := r.Unfinished()
		fmt.Fprintf(s.err, "wal dump: the record at %s goes on behind what was read\n", at)
	case errors.Is(err, io.EOF):
	default:
		return err
	}
	return nil
}

// failed adds the next step to an error.
func (d *walDump) failed(err error) error {
	if err == nil {
		return nil
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{code: exitFailed, err: err}
	}
	hint := f.hint
	if _, ok := errors.AsType[*wal.VersionError](err); ok {
		hint = "a newer helios may know it"
	}
	if _, ok := errors.AsType[*wal.CorruptError](err); ok {
		hint = "compare the segment with another node's or with the archive's; pg_waldump says what the server's own code makes of it"
	}
	return &failure{code: f.code, err: fmt.Errorf("wal dump: %w", trimmed(f.err)), hint: hint}
}

// trimmed drops the name of the package from the errors of wal.
func trimmed(err error) error {
	if text, ok := strings.CutPrefix(err.Error(), "wal: "); ok {
		return errors.New(text)
	}
	return plain(err)
}
