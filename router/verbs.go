package router

// consequence is a set of the flags that a statement's first word decides.
type consequence uint8

const (
	controlsTx consequence = 1 << iota
	voidsPrepared
	setsSettings
	changesState
	deallocates
)

// rule is what the first word of a statement says. The rest of the statement can
// only ask for more care.
type rule struct {
	verb  string // empty: no statement begins with the word
	class Class
	flags consequence
	query bool // its expressions are evaluated
}

var rules = [words]rule{
	wordSelect: {"SELECT", Read, 0, true},
	wordTable:  {"TABLE", Read, 0, true},
	wordValues: {"VALUES", Read, 0, true},
	wordWith:   {"WITH", Read, 0, true},

	wordDelete:   {"DELETE", Write, 0, true},
	wordInsert:   {"INSERT", Write, 0, true},
	wordLock:     {"LOCK", Write, 0, false},
	wordMerge:    {"MERGE", Write, 0, true},
	wordNotify:   {"NOTIFY", Write, 0, false},
	wordShow:     {"SHOW", Write, 0, false}, // a node's settings are its own: people mean the primary's
	wordTruncate: {"TRUNCATE", Write, 0, false},
	wordUpdate:   {"UPDATE", Write, 0, true},

	wordAlter:      {"ALTER", Utility, voidsPrepared, false},
	wordAnalyze:    {"ANALYZE", Utility, 0, false},
	wordCall:       {"CALL", Utility, setsSettings, true},
	wordCheckpoint: {"CHECKPOINT", Utility, 0, false},
	wordCluster:    {"CLUSTER", Utility, 0, false},
	wordComment:    {"COMMENT", Utility, 0, false},
	wordCopy:       {"COPY", Utility, 0, false},
	wordCreate:     {"CREATE", Utility, voidsPrepared, false},
	wordDo:         {"DO", Utility, setsSettings | voidsPrepared, false},
	wordDrop:       {"DROP", Utility, voidsPrepared, false},
	wordGrant:      {"GRANT", Utility, 0, false},
	wordImport:     {"IMPORT", Utility, voidsPrepared, false},
	wordReassign:   {"REASSIGN", Utility, voidsPrepared, false},
	wordRefresh:    {"REFRESH", Utility, 0, false},
	wordReindex:    {"REINDEX", Utility, 0, false},
	wordRevoke:     {"REVOKE", Utility, 0, false},
	wordSecurity:   {"SECURITY", Utility, 0, false},
	wordVacuum:     {"VACUUM", Utility, 0, false},

	wordClose:      {"CLOSE", Session, changesState, false},
	wordDeallocate: {"DEALLOCATE", Session, changesState | deallocates | voidsPrepared, false},
	wordDeclare:    {"DECLARE", Session, changesState, false},
	wordDiscard:    {"DISCARD", Session, changesState | deallocates | voidsPrepared | setsSettings, false},
	wordExecute:    {"EXECUTE", Session, changesState | setsSettings, false},
	wordFetch:      {"FETCH", Session, changesState, false},
	wordListen:     {"LISTEN", Session, changesState, false},
	wordLoad:       {"LOAD", Session, changesState | setsSettings, false},
	wordMove:       {"MOVE", Session, changesState, false},
	wordPrepare:    {"PREPARE", Session, changesState | deallocates, false},
	wordReset:      {"RESET", Session, changesState | setsSettings, false},
	wordSet:        {"SET", Session, changesState | setsSettings, false},
	wordUnlisten:   {"UNLISTEN", Session, changesState, false},

	wordAbort:     {"ABORT", Session, controlsTx, false},
	wordBegin:     {"BEGIN", Session, controlsTx, false},
	wordCommit:    {"COMMIT", Session, controlsTx, false},
	wordEnd:       {"END", Session, controlsTx, false},
	wordRelease:   {"RELEASE", Session, controlsTx, false},
	wordRollback:  {"ROLLBACK", Session, controlsTx, false},
	wordSavepoint: {"SAVEPOINT", Session, controlsTx, false},
	wordStart:     {"START", Session, controlsTx, false},

	wordExplain: {"EXPLAIN", Read, 0, false},
}

// begin applies the rule of the word that the statement begins with. Opening
// parentheses before it do not count.
func (c *classifier) begin(w word) {
	r := rules[w]
	if r.verb == "" {
		c.verb = plainWord
		c.raise(Utility, "unknown statement")
		return
	}
	if c.s.Count == 1 && !c.explain {
		c.s.Verb = r.verb
	}
	if w == wordExplain {
		c.skipExplain()
		return
	}
	c.verb, c.query = w, r.query
	if w == wordWith {
		*c.frame() |= inWith
	}
	c.raise(r.class, r.verb)
	c.apply(r.flags)
}

// apply sets the fields that stand for flags. What EXPLAIN shows is not done
// unless it analyzes; the flags are set in both cases.
func (c *classifier) apply(flags consequence) {
	s := c.s
	s.TxControl = s.TxControl || flags&controlsTx != 0
	s.Invalidates = s.Invalidates || flags&voidsPrepared != 0
	s.SetsLocal = s.SetsLocal || flags&setsSettings != 0
	s.UsesState = s.UsesState || flags&changesState != 0
	s.Deallocates = s.Deallocates || flags&deallocates != 0
}

// skipExplain moves behind EXPLAIN and its options, to the statement that it is
// about, whose class it has.
func (c *classifier) skipExplain() {
	c.explain = true
	for c.next.word == wordAnalyze || c.next.word == wordVerbose {
		c.advance()
	}
	if c.next.kind != open {
		return
	}
	c.advance()
	switch c.next.word {
	case wordSelect, wordValues, wordTable, wordWith:
		c.push()
		return
	}
	if c.next.kind == open {
		c.push()
		return
	}
	for c.next.kind != end && c.next.kind != semicolon && c.cur.kind != closing {
		c.advance()
	}
}

// clause looks at words whose meaning depends on the statement they are in.
func (c *classifier) clause() {
	switch c.verb {
	case wordCreate:
		c.createClause()
	case wordPrepare:
		if c.index == 1 && c.cur.word == wordTransaction {
			c.s.TxControl = true
		}
	case wordSet, wordReset:
		c.setClause()
	}
}

// setClause looks at what SET and RESET are about.
func (c *classifier) setClause() {
	if c.index > 3 {
		return
	}
	switch c.cur.word {
	case wordTransaction:
		c.s.TxControl = c.s.TxControl || c.index < 3 // else SESSION CHARACTERISTICS
	case wordAll, wordAuthorization, wordRole, wordSchema, wordSearchPath:
		c.s.Invalidates = true
	}
}

// createClause looks for temporary objects, for the result of a prepared
// statement, and for bodies of SQL functions with semicolons in them, which it
// counts as psql does.
func (c *classifier) createClause() {
	switch c.cur.word {
	case wordTemp:
		switch c.prev.word {
		case wordCreate, wordReplace, wordLocal, wordGlobal:
			c.useState("temporary object")
		}
	case wordExecute:
		if c.prev.word == wordAs {
			c.useState("EXECUTE")
		}
	case wordFunction, wordProcedure:
		c.routine = c.routine || c.index <= 3
	case wordBegin:
		if c.routine && c.next.word == wordAtomic {
			c.atomic++
		}
	case wordCase:
		if c.atomic > 0 {
			c.atomic++
		}
	case wordEnd:
		if c.atomic > 0 {
			c.atomic--
		}
	}
}
