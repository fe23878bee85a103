package lint

import (
	"errors"
	"fmt"
	"strings"
)

// A Key is one setting of a DSN or of a companion, as the code declares it.
type Key struct {
	Name    string
	Default string // "" for an empty list or name
	Values  string // what may be written, or an example; may be ""
	Help    string // one phrase
}

// KeyTable is the Markdown table of keys, in the order given.
func KeyTable(keys []Key) string {
	var b strings.Builder
	b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	for _, k := range keys {
		meaning := cell(k.Help)
		if k.Values != "" {
			meaning += ": " + code(k.Values)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", code(k.Name), code(k.Default), meaning)
	}
	return b.String()
}

// code is text as code in a table; nothing for no text.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + cell(text) + "`"
}

// cell makes text fit into a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}

// WithKeyTable returns document with table between the lines <!-- name --> and
// <!-- /name -->; an error if they are not there once each, on lines of their own.
func WithKeyTable(document, name, table string) (string, error) {
	begin, end := "<!-- "+name+" -->", "<!-- /"+name+" -->"
	if strings.Count(document, begin+"\n") != 1 || strings.Count(document, end) != 1 {
		return "", errors.New("the table of keys belongs between one line " + begin + " and one line " + end)
	}
	before, rest, _ := strings.Cut(document, begin+"\n")
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", errors.New(end + " stands before " + begin)
	}
	return before + begin + "\n\n" + table + "\n" + end + after, nil
}
