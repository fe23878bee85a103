package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/heliosdb/helios/wal"
)

// relationNames knows what relations are called.
type relationNames interface {
	// Name returns the name of the relation that has the file now; "" if it is
	// not known.
	Name(ctx context.Context, file wal.RelFile) string
	// Close gives up what it takes to know.
	Close()
}

// dumpedRecord is a record as a JSON object.
type dumpedRecord struct {
	LSN       wal.LSN       `json:"lsn"`
	End       wal.LSN       `json:"end"`
	Prev      wal.LSN       `json:"prev"`
	Timeline  wal.Timeline  `json:"timeline"`
	XID       uint32        `json:"xid"`
	TopXID    uint32        `json:"top_xid,omitempty"`
	Manager   string        `json:"rmgr"`
	Operation string        `json:"operation"`
	Time      *time.Time    `json:"time,omitempty"` // of a commit or abort
	Length    int           `json:"length"`
	Images    int           `json:"image_bytes"` // of Length
	Checksum  uint32        `json:"crc"`
	Origin    uint16        `json:"origin,omitempty"`
	Blocks    []dumpedBlock `json:"blocks,omitempty"`
}

// dumpedBlock is a block reference in it.
type dumpedBlock struct {
	Relation   string `json:"relation"`       // tablespace/database/relfilenode
	Name       string `json:"name,omitempty"` // schema and relation
	Fork       string `json:"fork"`
	Number     uint32 `json:"block"`
	ImageBytes int    `json:"image_bytes,omitempty"`
}

// printRecord writes one record.
func (d *walDump) printRecord(ctx context.Context, r *wal.Record) error {
	if d.asJSON {
		return json.NewEncoder(d.out).Encode(d.dumped(ctx, r))
	}
	line := r.Append(d.out.AvailableBuffer(), func(f wal.RelFile) string {
		if name := d.name(ctx, f); name != "" {
			return name
		}
		return f.String()
	})
	if t, ok := r.TransactionEnd(); ok {
		line = t.Time.AppendFormat(append(line, ' '), "2006-01-02 15:04:05.000000 UTC")
	}
	_, err := d.out.Write(append(line, '\n'))
	return err
}

// name returns what a relation is called; "" if that is not known.
func (d *walDump) name(ctx context.Context, file wal.RelFile) string {
	if d.names == nil {
		return ""
	}
	return d.names.Name(ctx, file)
}

// dumped takes what is printed out of a record.
func (d *walDump) dumped(ctx context.Context, r *wal.Record) dumpedRecord {
	out := dumpedRecord{
		LSN: r.LSN, End: r.End, Prev: r.Prev, Timeline: r.Timeline, XID: r.XID, TopXID: r.TopXID, Manager: r.Manager.String(),
		Operation: r.Operation(), Length: len(r.Raw), Images: r.ImageBytes(), Checksum: r.Checksum, Origin: r.Origin,
	}
	if t, ok := r.TransactionEnd(); ok {
		out.XID, out.Time = t.XID, &t.Time
	}
	for _, b := range r.Blocks() {
		out.Blocks = append(out.Blocks, dumpedBlock{
			Relation: b.File.String(), Name: d.name(ctx, b.File), Fork: b.Fork.String(), Number: b.Number, ImageBytes: len(b.Image),
		})
	}
	return out
}
