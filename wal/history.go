package wal

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// ParseHistory reads a timeline history file, such as 00000003.history for
// timeline 3: for every earlier timeline a line with its number, the position
// where the next one branched off, and a reason, separated by blanks. Empty
// lines and lines that begin with # are skipped. It returns where each timeline
// up to and including t began.
//
// Like readTimeLineHistory in timeline.c it takes decimal timelines in growing
// order, all of them below t.
func ParseHistory(t Timeline, file []byte) (History, error) {
	var h History
	var last *Switch // the timeline of the last line, and where it ended
	for line := range bytes.Lines(file) {
		end, err := parseHistoryLine(string(line))
		if err != nil {
			return nil, err
		}
		if end == nil {
			continue
		}
		if last != nil {
			if end.Timeline <= last.Timeline || end.LSN < last.LSN {
				return nil, fmt.Errorf("wal: history of timeline %s: timeline %s does not follow %s", t, end.Timeline, last.Timeline)
			}
			h = append(h, Switch{Timeline: end.Timeline, LSN: last.LSN})
		}
		last = end
	}
	if last == nil {
		return h, nil
	}
	if last.Timeline >= t {
		return nil, fmt.Errorf("wal: history of timeline %s speaks of timeline %s", t, last.Timeline)
	}
	return append(h, Switch{Timeline: t, LSN: last.LSN}), nil
}

// parseHistoryLine returns the timeline a line speaks of and where it ended;
// nil if the line holds a comment or nothing.
func parseHistoryLine(line string) (*Switch, error) {
	fields := strings.Fields(line)
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return nil, nil //nolint:nilnil // nothing is what the line says
	}
	if len(fields) < 2 {
		return nil, fmt.Errorf("wal: %q is not a line of a timeline history", line)
	}
	t, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || t == 0 {
		return nil, fmt.Errorf("wal: %q is not a timeline in a timeline history", fields[0])
	}
	l, err := ParseLSN(fields[1])
	if err != nil {
		return nil, err
	}
	return &Switch{Timeline: Timeline(t), LSN: l}, nil
}
