package replication

import (
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// A Command is what the other end of a replication connection asks for: one of
// the types of this package that say so.
type Command interface{ command() }

// IdentifySystem asks for the cluster's identifier, the timeline, and how far the
// WAL goes.
type IdentifySystem struct{}

// Show asks for a setting.
type Show struct{ Name string }

// TimelineHistory asks for the history file of a timeline.
type TimelineHistory struct{ Timeline wal.Timeline }

// CreateSlot asks for a new slot. What belongs to a logical one is not kept.
type CreateSlot struct {
	Name      string
	Temporary bool // it is to end with the connection
	Reserve   bool // WAL is to be kept from now on
	Logical   bool
}

// ReadSlot asks what a slot keeps.
type ReadSlot struct{ Name string }

// DropSlot asks for a slot to be removed.
type DropSlot struct {
	Name string
	Wait bool // until nobody uses it
}

// StartReplication asks for WAL.
type StartReplication struct {
	Slot     string // "" for none
	At       wal.LSN
	Timeline wal.Timeline // 0 for the newest
	// Options are those of a logical stream. PostgreSQL has none for a physical
	// one; a peer that is no PostgreSQL may know some.
	Options map[string]string
	Logical bool
}

// BaseBackup asks for a copy of the data.
type BaseBackup struct{}

// UploadManifest announces the manifest of a backup, for an incremental one.
type UploadManifest struct{}

// AlterSlot asks for a slot to be changed, which only a logical one can.
type AlterSlot struct{ Name string }

// Unknown is no replication command. PostgreSQL takes it for SQL.
type Unknown struct{ Text string }

func (IdentifySystem) command()   {}
func (Show) command()             {}
func (TimelineHistory) command()  {}
func (CreateSlot) command()       {}
func (ReadSlot) command()         {}
func (DropSlot) command()         {}
func (StartReplication) command() {}
func (BaseBackup) command()       {}
func (UploadManifest) command()   {}
func (AlterSlot) command()        {}
func (Unknown) command()          {}

// ParseCommand reads a command as PostgreSQL's repl_gram.y does: keywords in
// capitals, other words in small letters unless they are quoted, no comments. An
// error is an [Error] of PostgreSQL's class for syntax.
func ParseCommand(text string) (Command, error) {
	p := parser{scanner: scanner{text: text}}
	p.advance()
	word := p.token
	if word.kind == tokenUnterminated {
		return nil, syntaxError("unterminated quoted string")
	}
	rule, ok := rules()[word.text]
	if word.kind != tokenKeyword || !ok {
		return Unknown{Text: text}, nil
	}
	p.advance()
	c := rule(&p)
	p.take(tokenPunctuation, ";")
	if p.err == nil && p.token.kind != tokenEnd {
		p.fail()
	}
	if p.err != nil {
		return nil, p.err
	}
	return c, nil
}

// rules returns what follows each first word.
func rules() map[string]func(*parser) Command {
	return map[string]func(*parser) Command{
		"IDENTIFY_SYSTEM":         func(*parser) Command { return IdentifySystem{} },
		"SHOW":                    (*parser).show,
		"TIMELINE_HISTORY":        func(p *parser) Command { return TimelineHistory{Timeline: p.timeline()} },
		"CREATE_REPLICATION_SLOT": (*parser).createSlot,
		"READ_REPLICATION_SLOT":   func(p *parser) Command { return ReadSlot{Name: p.identifier()} },
		"DROP_REPLICATION_SLOT": func(p *parser) Command {
			return DropSlot{Name: p.identifier(), Wait: p.take(tokenKeyword, "WAIT")}
		},
		"START_REPLICATION": (*parser).startReplication,
		"BASE_BACKUP": func(p *parser) Command {
			p.rest()
			return BaseBackup{}
		},
		"UPLOAD_MANIFEST": func(*parser) Command { return UploadManifest{} },
		"ALTER_REPLICATION_SLOT": func(p *parser) Command {
			c := AlterSlot{Name: p.identifier()}
			p.rest()
			return c
		},
	}
}

// A parser looks one token ahead. After an error it stays where it is, so that
// rules need not look for one.
type parser struct {
	scanner scanner
	token   token
	err     *Error
}

func syntaxError(message string) *Error { return &Error{Code: codeSyntax, Message: message} }

// fail says that the token is out of place.
func (p *parser) fail() {
	message := "syntax error"
	if p.token.kind == tokenUnterminated {
		message = "unterminated quoted string"
	}
	p.failWith(message)
}

func (p *parser) failWith(message string) {
	if p.err == nil {
		p.err = syntaxError(message)
	}
}

func (p *parser) advance() { p.token = p.scanner.next() }

// take goes past a token if it is the one given, and reports whether it was.
func (p *parser) take(kind tokenKind, text string) bool {
	if p.err != nil || p.token.kind != kind || p.token.text != text {
		return false
	}
	p.advance()
	return true
}

// want goes past a token that has to be of a kind, and returns its text.
func (p *parser) want(kind tokenKind) string {
	if p.err != nil || p.token.kind != kind {
		p.fail()
		return ""
	}
	text := p.token.text
	p.advance()
	return text
}

func (p *parser) identifier() string { return p.want(tokenIdentifier) }

// rest goes past everything, up to the semicolon.
func (p *parser) rest() {
	for p.err == nil && p.token.kind != tokenEnd && p.token.text != ";" {
		if p.token.kind == tokenUnterminated {
			p.fail()
			return
		}
		p.advance()
	}
}

func (p *parser) timeline() wal.Timeline {
	text := p.want(tokenNumber)
	if p.err != nil {
		return 0
	}
	t, err := strconv.ParseUint(text, 10, 32)
	if err != nil || t == 0 {
		p.failWith("invalid timeline " + text)
	}
	return wal.Timeline(t)
}

func (p *parser) show() Command {
	parts := []string{p.identifier()}
	for p.take(tokenPunctuation, ".") {
		parts = append(parts, p.identifier())
	}
	return Show{Name: strings.Join(parts, ".")}
}

func (p *parser) createSlot() Command {
	c := CreateSlot{Name: p.identifier(), Temporary: p.take(tokenKeyword, "TEMPORARY")}
	if p.take(tokenKeyword, "LOGICAL") {
		c.Logical = true
		p.identifier()
		p.rest()
		return c
	}
	if !p.take(tokenKeyword, "PHYSICAL") {
		p.fail()
	}
	// PostgreSQL 15 and newer have a list in parentheses.
	if p.take(tokenKeyword, "RESERVE_WAL") {
		c.Reserve = true
		return c
	}
	for name, value := range p.options() {
		if name != "reserve_wal" {
			p.failWith("unrecognized option: " + name)
			continue
		}
		c.Reserve = p.boolean(name, value)
	}
	return c
}

func (p *parser) startReplication() Command {
	var c StartReplication
	if p.take(tokenKeyword, "SLOT") {
		c.Slot = p.identifier()
	}
	c.Logical = p.take(tokenKeyword, "LOGICAL")
	if !c.Logical {
		p.take(tokenKeyword, "PHYSICAL")
	}
	at, err := wal.ParseLSN(p.want(tokenPosition))
	if err != nil {
		p.failWith("invalid streaming start location")
	}
	c.At = at
	if !c.Logical && p.take(tokenKeyword, "TIMELINE") {
		c.Timeline = p.timeline()
	}
	c.Options = p.options()
	return c
}

// options reads a list in parentheses, if there is one. An option without a
// value has "".
func (p *parser) options() map[string]string {
	if !p.take(tokenPunctuation, "(") {
		return nil
	}
	options := map[string]string{}
	for p.err == nil {
		name, value := p.option()
		if _, ok := options[name]; ok {
			p.failWith("conflicting or redundant options")
		}
		options[name] = value
		if !p.take(tokenPunctuation, ",") {
			break
		}
	}
	if !p.take(tokenPunctuation, ")") {
		p.fail()
	}
	return options
}

// option reads one of a list: a word, which may be a keyword, and a value.
func (p *parser) option() (name, value string) {
	if p.token.kind == tokenKeyword {
		p.token.kind, p.token.text = tokenIdentifier, strings.ToLower(p.token.text)
	}
	name = p.identifier()
	switch p.token.kind {
	case tokenString, tokenNumber, tokenIdentifier:
		value = p.want(p.token.kind)
	case tokenEnd, tokenUnterminated, tokenKeyword, tokenPosition, tokenPunctuation:
	}
	return name, value
}

// boolean reads an option's value as defGetBoolean in define.c does.
func (p *parser) boolean(name, value string) bool {
	switch strings.ToLower(value) {
	case "", "true", "on", "1":
		return true
	case "false", "off", "0":
		return false
	}
	p.failWith(name + " requires a Boolean value")
	return false
}
