package router

import "strings"

// word is a keyword that has a part in a decision. Other keywords share
// plainWord and listWord; whatever is no keyword of PostgreSQL is noWord.
type word uint8

const (
	noWord    word = iota
	plainWord      // may also be the name of a function: replace, left, mode ...

	wordAbort
	wordAlter
	wordAnalyze
	wordAtomic
	wordBegin
	wordCall
	wordCheckpoint
	wordClose
	wordCluster
	wordComment
	wordCommit
	wordCopy
	wordDeallocate
	wordDeclare
	wordDelete
	wordDiscard
	wordDrop
	wordExecute
	wordExplain
	wordFunction
	wordGlobal
	wordImport
	wordInsert
	wordKey
	wordListen
	wordLoad
	wordLocal
	wordLock
	wordMerge
	wordMove
	wordNo
	wordNotify
	wordPartition
	wordPrepare
	wordProcedure
	wordReassign
	wordRecursive
	wordRefresh
	wordReindex
	wordRelease
	wordReplace
	wordReset
	wordRevoke
	wordRole
	wordRollback
	wordSavepoint
	wordSchema
	wordSearchPath // no keyword, but SET knows it
	wordSecurity
	wordShare
	wordShow
	wordStart
	wordTemp
	wordTransaction
	wordTruncate
	wordUnlisten
	wordUpdate
	wordVacuum
	wordVerbose

	// The words from here on may name a function as well, but the grammar puts
	// some of them before a parenthesis of another kind: x FILTER (WHERE ...).
	softWord
	wordBy
	wordConflict
	wordLike
	wordMaterialized
	wordOperator
	wordRollup
	wordSet
	wordSets
	wordVarying
	wordZone

	// The words from here on never name a function.
	listWord
	wordAll
	wordAs
	wordAuthorization
	wordCase
	wordCharacter
	wordCreate
	wordDistinct
	wordDo
	wordEnd
	wordFetch
	wordFor
	wordFrom
	wordGrant
	wordGroup
	wordGrouping
	wordInto
	wordIs
	wordLimit
	wordNot
	wordOffset
	wordOn
	wordOrder
	wordSelect
	wordSetOperation // UNION, INTERSECT, EXCEPT
	wordTable
	wordTime
	wordValues
	wordWith

	words int = iota
)

// keywords holds PostgreSQL's keywords (parser/kwlist.h) in a table with open
// addressing.
var keywords = newKeywordTable()

// keywordSlots is a power of two: less than a quarter of the table is full, so
// that most names that are no keyword meet an empty place.
const keywordSlots = 1 << keywordBits

const keywordBits = 11

// keywordTable finds a keyword by its first eight letters, in one comparison.
// What it takes to see that a name is none lies close together.
type keywordTable struct {
	heads [keywordSlots]uint64 // the first eight letters in upper case, filled up with zeros; 0: no keyword
	words [keywordSlots]word
	names [keywordSlots]string // in upper case
}

// longestKeyword is the length of CURRENT_TIMESTAMP.
const longestKeyword = 17

var upper = upperBytes()

// upperBytes folds ASCII alone, as PostgreSQL does with identifiers in UTF-8.
func upperBytes() (t [256]byte) {
	for b := range t {
		t[b] = byte(b)
		if 'a' <= b && b <= 'z' {
			t[b] -= 'a' - 'A'
		}
	}
	return t
}

// headLength is how many letters of a name make its head.
const headLength = 8

// headOf returns the first letters of the name src[start:end] in upper case. What
// is no letter is changed as well, to what occurs in no keyword.
func headOf(src string, start, end int) uint64 {
	const caseBit = 0x2020202020202020
	n := end - start
	if s := src[start:]; len(s) >= headLength { // one load for the compiler
		head := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		if n < headLength {
			head &= 1<<(8*n) - 1
		}
		return head &^ caseBit
	}
	head := uint64(0)
	for i := range n {
		head |= uint64(src[start+i]) << (8 * i)
	}
	return head &^ caseBit
}

// keywordSlot is the place at which the search for a name begins.
func keywordSlot(head uint64) int { return int(head * 0x9E3779B97F4A7C15 >> (64 - keywordBits)) }

// lookupWord returns which keyword the name src[start:end] is, in any case of
// letters.
func lookupWord(src string, start, end int) word {
	n := end - start
	if n < 2 || n > longestKeyword {
		return noWord
	}
	head := headOf(src, start, end)
	for slot := keywordSlot(head); ; slot = (slot + 1) % keywordSlots {
		switch keywords.heads[slot] {
		case 0:
			return noWord
		case head:
			if name := keywords.names[slot]; n <= headLength && len(name) == n || equalsUpper(src[start:end], name) {
				return keywords.words[slot]
			}
		}
	}
}

// equalsUpper reports whether s in upper case is name.
func equalsUpper(s, name string) bool {
	if len(s) != len(name) {
		return false
	}
	for i := range len(s) {
		if upper[s[i]] != name[i] {
			return false
		}
	}
	return true
}

func newKeywordTable() *keywordTable {
	t := new(keywordTable)
	for w, names := range specialWords {
		for name := range strings.FieldsSeq(names) {
			t.add(name, word(w))
		}
	}
	for name := range strings.FieldsSeq(listWords) {
		t.add(name, listWord)
	}
	for name := range strings.FieldsSeq(plainWords) {
		t.add(name, plainWord)
	}
	return t
}

func (t *keywordTable) add(name string, w word) {
	head := headOf(name, 0, len(name))
	slot := keywordSlot(head)
	for t.heads[slot] != 0 {
		slot = (slot + 1) % keywordSlots
	}
	t.heads[slot], t.names[slot], t.words[slot] = head, name, w
}

var specialWords = [words]string{
	wordBy:            "BY",
	wordConflict:      "CONFLICT",
	wordLike:          "LIKE ILIKE",
	wordMaterialized:  "MATERIALIZED",
	wordRollup:        "ROLLUP CUBE",
	wordSets:          "SETS",
	wordVarying:       "VARYING",
	wordZone:          "ZONE",
	wordCharacter:     "CHARACTER CHAR NCHAR BIT",
	wordGroup:         "GROUP",
	wordGrouping:      "GROUPING",
	wordNot:           "NOT",
	wordTime:          "TIME",
	wordPartition:     "PARTITION",
	softWord:          "COLUMNS ESCAPE FILTER JOIN OVER OVERLAPS PASSING REPEATABLE",
	wordAbort:         "ABORT",
	wordAll:           "ALL",
	wordAlter:         "ALTER",
	wordAnalyze:       "ANALYZE ANALYSE",
	wordAs:            "AS",
	wordAtomic:        "ATOMIC",
	wordAuthorization: "AUTHORIZATION SESSION_AUTHORIZATION",
	wordBegin:         "BEGIN",
	wordCall:          "CALL",
	wordCase:          "CASE",
	wordCheckpoint:    "CHECKPOINT",
	wordClose:         "CLOSE",
	wordCluster:       "CLUSTER",
	wordComment:       "COMMENT",
	wordCommit:        "COMMIT",
	wordCopy:          "COPY",
	wordCreate:        "CREATE",
	wordDeallocate:    "DEALLOCATE",
	wordDeclare:       "DECLARE",
	wordDelete:        "DELETE",
	wordDiscard:       "DISCARD",
	wordDistinct:      "DISTINCT",
	wordDo:            "DO",
	wordDrop:          "DROP",
	wordEnd:           "END",
	wordExecute:       "EXECUTE",
	wordExplain:       "EXPLAIN",
	wordFetch:         "FETCH",
	wordFor:           "FOR",
	wordFrom:          "FROM",
	wordFunction:      "FUNCTION",
	wordGlobal:        "GLOBAL",
	wordGrant:         "GRANT",
	wordImport:        "IMPORT",
	wordInsert:        "INSERT",
	wordInto:          "INTO",
	wordIs:            "IS",
	wordKey:           "KEY",
	wordLimit:         "LIMIT",
	wordListen:        "LISTEN",
	wordLoad:          "LOAD",
	wordLocal:         "LOCAL",
	wordLock:          "LOCK",
	wordMerge:         "MERGE",
	wordMove:          "MOVE",
	wordNo:            "NO",
	wordNotify:        "NOTIFY",
	wordOffset:        "OFFSET",
	wordOn:            "ON",
	wordOperator:      "OPERATOR",
	wordOrder:         "ORDER",
	wordPrepare:       "PREPARE",
	wordProcedure:     "PROCEDURE",
	wordReassign:      "REASSIGN",
	wordRecursive:     "RECURSIVE",
	wordRefresh:       "REFRESH",
	wordReindex:       "REINDEX",
	wordRelease:       "RELEASE",
	wordReplace:       "REPLACE",
	wordReset:         "RESET",
	wordRevoke:        "REVOKE",
	wordRole:          "ROLE",
	wordRollback:      "ROLLBACK",
	wordSavepoint:     "SAVEPOINT",
	wordSchema:        "SCHEMA",
	wordSearchPath:    "SEARCH_PATH",
	wordSecurity:      "SECURITY",
	wordSelect:        "SELECT",
	wordSet:           "SET",
	wordSetOperation:  "UNION INTERSECT EXCEPT",
	wordShare:         "SHARE",
	wordShow:          "SHOW",
	wordStart:         "START",
	wordTable:         "TABLE",
	wordTemp:          "TEMP TEMPORARY",
	wordTransaction:   "TRANSACTION",
	wordTruncate:      "TRUNCATE",
	wordUnlisten:      "UNLISTEN",
	wordUpdate:        "UPDATE",
	wordVacuum:        "VACUUM",
	wordValues:        "VALUES",
	wordVerbose:       "VERBOSE",
	wordWith:          "WITH",
}

// listWords are the reserved words and those which PostgreSQL allows as names of
// columns, but not of functions. The JSON words of version 16 and later are not
// here: an older server takes them for functions.
const listWords = `
AND ANY ARRAY ASC ASYMMETRIC BETWEEN BIGINT BOOLEAN BOTH CAST CHECK COALESCE COLLATE COLUMN CONSTRAINT
CURRENT_CATALOG CURRENT_DATE CURRENT_ROLE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER DEC DECIMAL DEFAULT
DEFERRABLE DESC ELSE EXISTS EXTRACT FALSE FLOAT FOREIGN GREATEST HAVING IN INITIALLY INOUT INT INTEGER INTERVAL
LATERAL LEADING LEAST LOCALTIME LOCALTIMESTAMP NATIONAL NONE NORMALIZE NULL NULLIF NUMERIC ONLY OR OUT OVERLAY
PLACING POSITION PRECISION PRIMARY REAL REFERENCES RETURNING ROW SESSION_USER SETOF SMALLINT SOME SUBSTRING
SYMMETRIC THEN TIMESTAMP TO TRAILING TREAT TRIM TRUE UNIQUE USER USING VARCHAR VARIADIC WHEN WHERE WINDOW
XMLATTRIBUTES XMLCONCAT XMLELEMENT XMLEXISTS XMLFOREST XMLNAMESPACES XMLPARSE XMLPI XMLROOT XMLSERIALIZE XMLTABLE`

// plainWords are the other keywords. That they are no identifiers matters where
// two names in a row tell an alias: FROM t AS x (a), t x (a), but BY f (a).
const plainWords = `
ABSENT ABSOLUTE ACCESS ACTION ADD ADMIN AFTER AGGREGATE ALSO ALWAYS ASENSITIVE ASSERTION ASSIGNMENT AT ATTACH
ATTRIBUTE BACKWARD BEFORE BINARY BREADTH CACHE CALLED CASCADE CASCADED CATALOG CHAIN CHARACTERISTICS CLASS
COLLATION COMMENTS COMMITTED COMPRESSION CONCURRENTLY CONDITIONAL CONFIGURATION CONNECTION CONSTRAINTS CONTENT
CONTINUE CONVERSION COST CROSS CSV CURRENT CURRENT_SCHEMA CURSOR CYCLE DATA DATABASE DAY DEFAULTS DEFERRED DEFINER
DELIMITER DELIMITERS DEPENDS DEPTH DETACH DICTIONARY DISABLE DOCUMENT DOMAIN DOUBLE EACH EMPTY ENABLE ENCODING
ENCRYPTED ENFORCED ENUM ERROR EVENT EXCLUDE EXCLUDING EXCLUSIVE EXPRESSION EXTENSION EXTERNAL FAMILY FINALIZE FIRST
FOLLOWING FORCE FORMAT FORWARD FREEZE FULL FUNCTIONS GENERATED GRANTED GROUPS HANDLER HEADER HOLD HOUR IDENTITY IF
IMMEDIATE IMMUTABLE IMPLICIT INCLUDE INCLUDING INCREMENT INDENT INDEX INDEXES INHERIT INHERITS INLINE INNER INPUT
INSENSITIVE INSTEAD INVOKER ISNULL ISOLATION KEEP KEYS LABEL LANGUAGE LARGE LAST LEAKPROOF LEFT LEVEL LOCATION
LOCKED LOGGED MAPPING MATCH MATCHED MAXVALUE METHOD MINUTE MINVALUE MODE MONTH NAME NAMES NATURAL NESTED NEW NEXT
NFC NFD NFKC NFKD NORMALIZED NOTHING NOTNULL NOWAIT NULLS OBJECT OBJECTS OF OFF OIDS OLD OMIT OPTION OPTIONS
ORDINALITY OTHERS OUTER OVERRIDING OWNED OWNER PARALLEL PARAMETER PARSER PARTIAL PASSWORD PATH PERIOD PLAN PLANS
POLICY PRECEDING PREPARED PRESERVE PRIOR PRIVILEGES PROCEDURAL PROCEDURES PROGRAM PUBLICATION QUOTE QUOTES RANGE
READ RECHECK REF REFERENCING RELATIVE RENAME REPLICA RESTART RESTRICT RETURN RETURNS RIGHT ROUTINE ROUTINES ROWS
RULE SCALAR SCHEMAS SCROLL SEARCH SECOND SEQUENCE SEQUENCES SERIALIZABLE SERVER SESSION SIMILAR SIMPLE SKIP
SNAPSHOT SOURCE SPLIT SQL STABLE STANDALONE STATEMENT STATISTICS STDIN STDOUT STORAGE STORED STRICT STRING STRIP
SUBSCRIPTION SUPPORT SYSID SYSTEM SYSTEM_USER TABLES TABLESAMPLE TABLESPACE TARGET TEMPLATE TEXT TIES TRANSFORM
TRIGGER TRUSTED TYPE TYPES UESCAPE UNBOUNDED UNCOMMITTED UNCONDITIONAL UNENCRYPTED UNKNOWN UNLOGGED UNTIL VALID
VALIDATE VALIDATOR VALUE VERSION VIEW VIEWS VIRTUAL VOLATILE WHITESPACE WITHIN WITHOUT WORK WRAPPER WRITE XML YEAR
YES`
