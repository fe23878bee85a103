package replication

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// An Identity is what a server says of itself.
type Identity struct {
	System      string // identifier of the cluster
	Timeline    wal.Timeline
	Flush       wal.LSN // how far its WAL is flushed
	SegmentSize int64   // of its WAL, in bytes
	Version     int     // as in server_version_num, such as 150018; 0 if not known
	Parameters  map[string]string
	InRecovery  bool
}

// A Slot is a replication slot. The zero Slot is one that does not exist.
type Slot struct {
	Type    string       // physical
	Restart wal.Position // the oldest WAL it keeps; zero if it keeps none yet
}

// Identify asks the server who it is and how far it has come.
func (c *Client) Identify(ctx context.Context) (Identity, error) {
	row, err := c.row(ctx, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return Identity{}, err
	}
	id := Identity{System: string(row[0]), Version: parseVersion(c.parameters["server_version"])}
	if id.Timeline, err = parseTimeline(row[1]); err != nil {
		return Identity{}, err
	}
	if id.Flush, err = wal.ParseLSN(string(row[2])); err != nil {
		return Identity{}, err
	}
	if id.InRecovery, err = c.inRecovery(ctx); err != nil {
		return Identity{}, err
	}
	id.SegmentSize, err = c.walSegmentSize(ctx)
	id.Parameters = maps.Clone(c.parameters)
	return id, err
}

// inRecovery asks whether the server is a standby. PostgreSQL 14 and newer
// report it by themselves; before, no transaction of a standby can write, but
// neither can one of a primary that was told so.
func (c *Client) inRecovery(ctx context.Context) (bool, error) {
	if hot, ok := c.parameters["in_hot_standby"]; ok {
		return hot == "on", nil
	}
	text, err := c.Show(ctx, "transaction_read_only")
	return text == "on", err
}

// walSegmentSize asks for the size of segments, once: it does not change.
func (c *Client) walSegmentSize(ctx context.Context) (int64, error) {
	if c.segmentSize != 0 {
		return c.segmentSize, nil
	}
	text, err := c.Show(ctx, "wal_segment_size")
	if err != nil {
		return 0, err
	}
	c.segmentSize, err = parseSize(text)
	return c.segmentSize, err
}

// History returns the history file of a timeline.
func (c *Client) History(ctx context.Context, t wal.Timeline) ([]byte, error) {
	row, err := c.row(ctx, "TIMELINE_HISTORY "+t.String(), 2)
	if err != nil {
		return nil, err
	}
	return row[1], nil
}

// CreateSlot makes a physical slot, which lives as long as the connection if it
// is temporary, and keeps WAL from now on if reserve says so; else from when it
// is first used.
func (c *Client) CreateSlot(ctx context.Context, name string, temporary, reserve bool) error {
	text := "CREATE_REPLICATION_SLOT " + quoteIdentifier(name)
	if temporary {
		text += " TEMPORARY"
	}
	text += " PHYSICAL"
	if reserve {
		text += " RESERVE_WAL"
	}
	_, err := c.row(ctx, text, 4)
	return err
}

// DropSlot removes a slot, which nobody may be using.
func (c *Client) DropSlot(ctx context.Context, name string) error {
	_, err := c.rows(ctx, "DROP_REPLICATION_SLOT "+quoteIdentifier(name))
	return err
}

// ReadSlot returns what a physical slot keeps. PostgreSQL 14 and older do not
// know how to tell.
func (c *Client) ReadSlot(ctx context.Context, name string) (Slot, error) {
	row, err := c.row(ctx, "READ_REPLICATION_SLOT "+quoteIdentifier(name), 3)
	if err != nil {
		return Slot{}, err
	}
	slot := Slot{Type: string(row[0])}
	if row[1] != nil {
		if slot.Restart.LSN, err = wal.ParseLSN(string(row[1])); err != nil {
			return Slot{}, err
		}
	}
	if row[2] != nil {
		slot.Restart.Timeline, err = parseTimeline(row[2])
	}
	return slot, err
}

// Show returns a setting of the server, as SHOW prints it.
func (c *Client) Show(ctx context.Context, name string) (string, error) {
	row, err := c.row(ctx, "SHOW "+name, 1)
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}

// row returns the one row that answers a command.
func (c *Client) row(ctx context.Context, text string, columns int) ([][]byte, error) {
	rows, err := c.rows(ctx, text)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 || len(rows[0]) < columns {
		return nil, fmt.Errorf("replication: the answer to %s is not one row of %d columns", text, columns)
	}
	return rows[0], nil
}

// rows returns the rows that answer a command which starts no stream.
func (c *Client) rows(ctx context.Context, text string) ([][][]byte, error) {
	a, err := c.command(ctx, text)
	if err != nil {
		return nil, err
	}
	if a.copy {
		return nil, c.failed(fmt.Errorf("the answer to %s is a stream", text))
	}
	return a.rows, nil
}

// quoteIdentifier returns name as it stands in a command.
func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// parseVersion turns server_version, such as "15.18 (Debian 15.18-1)" or
// "18beta1", into PostgreSQL's number for it; 0 if it is neither.
func parseVersion(text string) int {
	major, rest := leadingNumber(text)
	minor := 0
	if after, ok := strings.CutPrefix(rest, "."); ok {
		minor, _ = leadingNumber(after)
	}
	return major*10000 + minor
}

// leadingNumber returns the digits that text begins with, up to four, and what
// follows them.
func leadingNumber(text string) (n int, rest string) {
	end := 0
	for end < len(text) && end < 4 && '0' <= text[end] && text[end] <= '9' {
		n = n*10 + int(text[end]-'0')
		end++
	}
	return n, text[end:]
}

// parseSize reads an amount of memory as SHOW prints it.
func parseSize(text string) (int64, error) {
	for unit, factor := range map[string]int64{"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err == nil && n > 0 {
				return n * factor, nil
			}
		}
	}
	return 0, fmt.Errorf("replication: %q is not the size of a segment", text)
}
