package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// A shade is how a cell looks on a terminal.
type shade string

// Shades, as SGR parameters.
const (
	plainShade shade = ""
	boldShade  shade = "1"
	goodShade  shade = "32"
	warnShade  shade = "33"
	badShade   shade = "31"
	dimShade   shade = "2"
)

// cell is one field of a table.
type cell struct {
	text  string
	shade shade
}

// table is lines of cells that are written below each other.
type table struct {
	head []string
	rows [][]cell
}

// newTable returns an empty table with these columns.
func newTable(head ...string) *table { return &table{head: head} }

// add puts a line below the others.
func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// write aligns the columns. Colours are used only where colourful says so.
func (t *table) write(w io.Writer) error {
	colours := colourful(w)
	widths := make([]int, len(t.head))
	lines := append([][]cell{headCells(t.head)}, t.rows...)
	for _, line := range lines {
		for i, c := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, line := range lines {
		var b strings.Builder
		for i, c := range line {
			b.WriteString(paint(c.text, c.shade, colours))
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		if _, err := io.WriteString(w, strings.TrimRight(b.String(), " ")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// headCells is the first line.
func headCells(head []string) []cell {
	var cells []cell
	for _, text := range head {
		cells = append(cells, cell{text, dimShade})
	}
	return cells
}

// paint returns text in a shade, if there are colours.
func paint(text string, s shade, colours bool) string {
	if s == plainShade || !colours || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// colourful reports whether w is a terminal whose owner likes colours
// (https://no-color.org).
func colourful(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && isTerminal(file) && os.Getenv("NO_COLOR") == ""
}

// writeJSON writes v for programs.
func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
