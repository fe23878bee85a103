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

// keywords holds PostgreSQL's keywords (parser/kwlist.h) in upper case, in a
// table with open addressing.
var keywords = newKeywordTable()

// keywordTable finds a keyword by a few of its letters. It is less than a quarter
// full, so that most names that are no keyword meet an empty place.
type keywordTable [2048]struct {
	name string
	word word
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

// wordSlot is the place at which the search for a name begins.
func wordSlot(s string) int {
	n := len(s)
	h := uint32(upper[s[0]]) | uint32(upper[s[n/2]])<<8 | uint32(upper[s[n-1]])<<16 | uint32(n)<<24
	return int(h * 0x9E3779B1 >> 21)
}

// lookupWord returns which keyword s is, in any case of letters.
func lookupWord(s string) word {
	if len(s) < 2 || len(s) > longestKeyword {
		return noWord
	}
	for slot := wordSlot(s); ; slot = (slot + 1) % len(keywords) {
		switch e := &keywords[slot]; {
		case e.name == "":
			return noWord
		case len(e.name) == len(s) && equalsUpper(s, e.name):
			return e.word
		}
	}
}

// equalsUpper reports whether s in upper case is name. Both are equally long.
func equalsUpper(s, name string) bool {
	for i := range len(s) {
		if upper[s[i]] != name[i] {
			return false
		}
	}
	return true
}

func newKeywordTable() (t keywordTable) {
	add := func(name string, w word) {
		slot := wordSlot(name)
		for t[slot].name != "" {
			slot = (slot + 1) % len(t)
		}
		t[slot].name, t[slot].word = name, w
	}
	for w, names := range specialWords {
		for name := range strings.FieldsSeq(names) {
			add(name, word(w))
		}
	}
	for name := range strings.FieldsSeq(listWords) {
		add(name, listWord)
	}
	for name := range strings.FieldsSeq(plainWords) {
		add(name, plainWord)
	}
	return t
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
