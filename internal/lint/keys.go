package lint

import (
	"errors"
	"fmt"
	"strings"
)

// A Key is one setting of a DSN, as the driver declares it.
type Key struct {
	Name    string
	Default string // "" for an empty list or name
	Values  string // what may be written, or an example; may be ""
	Help    string // one phrase
}

// The lines between which the README lists the keys.
const (
	keysBegin = "<!-- keys -->"
	keysEnd   = "<!-- /keys -->"
)

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

// WithKeyTable returns document with table between its markers; an error if the
// markers are not there once each, on lines of their own.
func WithKeyTable(document, table string) (string, error) {
	if strings.Count(document, keysBegin+"\n") != 1 || strings.Count(document, keysEnd) != 1 {
		return "", errors.New("the table of keys belongs between one line " + keysBegin + " and one line " + keysEnd)
	}
	before, rest, _ := strings.Cut(document, keysBegin+"\n")
	_, after, ok := strings.Cut(rest, keysEnd)
	if !ok {
		return "", errors.New(keysEnd + " stands before " + keysBegin)
	}
	return before + keysBegin + "\n\n" + table + "\n" + keysEnd + after, nil
}
