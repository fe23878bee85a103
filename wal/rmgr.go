package wal

import "fmt"

// A Manager is a resource manager: the part of PostgreSQL that a record is for.
type Manager uint8

// The managers that are built in (access/rmgrlist.h), the same since PostgreSQL 13.
const (
	ManagerXLOG Manager = iota
	ManagerTransaction
	ManagerStorage
	ManagerCLOG
	ManagerDatabase
	ManagerTablespace
	ManagerMultiXact
	ManagerRelMap
	ManagerStandby
	ManagerHeap2
	ManagerHeap
	ManagerBtree
	ManagerHash
	ManagerGin
	ManagerGist
	ManagerSequence
	ManagerSPGist
	ManagerBRIN
	ManagerCommitTS
	ManagerReplicationOrigin
	ManagerGeneric
	ManagerLogicalMessage

	builtinManagers
)

// firstCustom is the first number that an extension may take (RM_MIN_CUSTOM_ID).
const firstCustom Manager = 128

var managerNames = [builtinManagers]string{
	"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby", "Heap2", "Heap", "Btree",
	"Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs", "ReplicationOrigin", "Generic", "LogicalMessage",
}

// String returns the name that pg_waldump prints, such as Heap2. That of an
// extension is not in the log.
func (m Manager) String() string {
	if m < builtinManagers {
		return managerNames[m]
	}
	return fmt.Sprintf("custom%03d", uint8(m))
}

// valid reports whether a server of this version can have written m.
func (m Manager) valid(version int) bool {
	return m < builtinManagers || m >= firstCustom && version >= 15
}

// What the records are called that mean something to the whole log, in Operation.
const (
	OpCheckpointShutdown = "CHECKPOINT_SHUTDOWN"
	OpCheckpointOnline   = "CHECKPOINT_ONLINE"
	OpSwitch             = "SWITCH"
	OpCommit             = "COMMIT"
	OpCommitPrepared     = "COMMIT_PREPARED"
	OpAbort              = "ABORT"
	OpAbortPrepared      = "ABORT_PREPARED"
)

// Info of those records without what else it says.
const (
	infoMask               = 0xF0
	infoCheckpointShutdown = 0x00
	infoSwitch             = 0x40

	infoTransactionMask   = 0x70
	infoCommit            = 0x00
	infoAbort             = 0x20
	infoCommitPrepared    = 0x30
	infoAbortPrepared     = 0x40
	infoTransactionHasMap = 0x80 // more fields follow the time
)

// IsSwitch reports whether the rest of the segment after the record is empty
// (pg_switch_wal, archive_timeout).
func (r *Record) IsSwitch() bool { return r.Manager == ManagerXLOG && r.Info&infoMask == infoSwitch }

// IsShutdown reports whether the record is the checkpoint with which a server
// ends its log when it is stopped in order.
func (r *Record) IsShutdown() bool {
	return r.Manager == ManagerXLOG && r.Info&infoMask == infoCheckpointShutdown
}

// IsCommit reports whether a transaction commits with the record, prepared or not.
func (r *Record) IsCommit() bool {
	info := r.Info & infoTransactionMask
	return r.Manager == ManagerTransaction && (info == infoCommit || info == infoCommitPrepared)
}

// Operation returns what happened in the words of the pg_waldump of the server's
// version, such as INSERT+INIT. One that it does not know is UNKNOWN (50).
func (r *Record) Operation() string {
	op := r.Info >> 4
	if r.Manager < builtinManagers {
		known := op
		if r.Manager == ManagerTransaction {
			known &= infoTransactionMask >> 4
		}
		if name := operationsOf(r.Manager, r.Version)[known]; name != "" {
			return name
		}
	}
	return unknownOperations[op]
}

// operations are the names of a manager's records by the upper half of Info
// (the rm_identify functions in backend/access/rmgrdesc).
type operations [16]string

// operationsOf returns those of a version: PostgreSQL 18's, but for the managers
// that were different before.
func operationsOf(m Manager, version int) *operations {
	switch {
	case m == ManagerXLOG && version < 17:
		return &xlogBefore17
	case m == ManagerTransaction && version < 14:
		return &transactionBefore14
	case m == ManagerDatabase && version < 15:
		return &databaseBefore15
	case m == ManagerHeap2 && version < 14:
		return &heap2Before14
	case m == ManagerHeap2 && version < 17:
		return &heap2Before17
	case m == ManagerCommitTS && version < 14:
		return &commitTSBefore14
	default:
		return &newestOperations[m]
	}
}

var newestOperations = [builtinManagers]operations{
	ManagerXLOG: {
		OpCheckpointShutdown, OpCheckpointOnline, "NOOP", "NEXTOID", OpSwitch, "BACKUP_END", "PARAMETER_CHANGE", "RESTORE_POINT",
		"FPW_CHANGE", "END_OF_RECOVERY", "FPI_FOR_HINT", "FPI", "", "OVERWRITE_CONTRECORD", "CHECKPOINT_REDO",
	},
	ManagerTransaction: {OpCommit, "PREPARE", OpAbort, OpCommitPrepared, OpAbortPrepared, "ASSIGNMENT", "INVALIDATION"},
	ManagerStorage:     {0x1: "CREATE", 0x2: "TRUNCATE"},
	ManagerCLOG:        {"ZEROPAGE", "TRUNCATE"},
	ManagerDatabase:    {"CREATE_FILE_COPY", "CREATE_WAL_LOG", "DROP"},
	ManagerTablespace:  {"CREATE", "DROP"},
	ManagerMultiXact:   {"ZERO_OFF_PAGE", "ZERO_MEM_PAGE", "CREATE_ID", "TRUNCATE_ID"},
	ManagerRelMap:      {"UPDATE"},
	ManagerStandby:     {"LOCK", "RUNNING_XACTS", "INVALIDATIONS"},
	ManagerHeap2: {
		"REWRITE", "PRUNE_ON_ACCESS", "PRUNE_VACUUM_SCAN", "PRUNE_VACUUM_CLEANUP", "VISIBLE", "MULTI_INSERT", "LOCK_UPDATED", "NEW_CID",
		0xD: "MULTI_INSERT+INIT",
	},
	ManagerHeap: {
		"INSERT", "DELETE", "UPDATE", "TRUNCATE", "HOT_UPDATE", "HEAP_CONFIRM", "LOCK", "INPLACE",
		0x8: "INSERT+INIT", 0xA: "UPDATE+INIT", 0xC: "HOT_UPDATE+INIT",
	},
	ManagerBtree: {
		"INSERT_LEAF", "INSERT_UPPER", "INSERT_META", "SPLIT_L", "SPLIT_R", "INSERT_POST", "DEDUP", "DELETE", "UNLINK_PAGE",
		"UNLINK_PAGE_META", "NEWROOT", "MARK_PAGE_HALFDEAD", "VACUUM", "REUSE_PAGE", "META_CLEANUP",
	},
	ManagerHash: {
		"INIT_META_PAGE", "INIT_BITMAP_PAGE", "INSERT", "ADD_OVFL_PAGE", "SPLIT_ALLOCATE_PAGE", "SPLIT_PAGE", "SPLIT_COMPLETE",
		"MOVE_PAGE_CONTENTS", "SQUEEZE_PAGE", "DELETE", "SPLIT_CLEANUP", "UPDATE_META_PAGE", "VACUUM_ONE_PAGE",
	},
	ManagerGin: {
		0x1: "CREATE_PTREE", 0x2: "INSERT", 0x3: "SPLIT", 0x4: "VACUUM_PAGE", 0x5: "DELETE_PAGE", 0x6: "UPDATE_META_PAGE",
		0x7: "INSERT_LISTPAGE", 0x8: "DELETE_LISTPAGE", 0x9: "VACUUM_DATA_LEAF_PAGE",
	},
	ManagerGist:     {0x0: "PAGE_UPDATE", 0x1: "DELETE", 0x2: "PAGE_REUSE", 0x3: "PAGE_SPLIT", 0x6: "PAGE_DELETE", 0x7: "ASSIGN_LSN"},
	ManagerSequence: {"LOG"},
	ManagerSPGist: {
		0x1: "ADD_LEAF", 0x2: "MOVE_LEAFS", 0x3: "ADD_NODE", 0x4: "SPLIT_TUPLE", 0x5: "PICKSPLIT", 0x6: "VACUUM_LEAF",
		0x7: "VACUUM_ROOT", 0x8: "VACUUM_REDIRECT",
	},
	ManagerBRIN: {
		"CREATE_INDEX", "INSERT", "UPDATE", "SAMEPAGE_UPDATE", "REVMAP_EXTEND", "DESUMMARIZE",
		0x9: "INSERT+INIT", 0xA: "UPDATE+INIT",
	},
	ManagerCommitTS:          {"ZEROPAGE", "TRUNCATE"},
	ManagerReplicationOrigin: {"SET", "DROP"},
	ManagerGeneric: {
		"Generic", "Generic", "Generic", "Generic", "Generic", "Generic", "Generic", "Generic",
		"Generic", "Generic", "Generic", "Generic", "Generic", "Generic", "Generic", "Generic",
	},
	ManagerLogicalMessage: {"MESSAGE"},
}

var xlogBefore17 = operations{
	OpCheckpointShutdown, OpCheckpointOnline, "NOOP", "NEXTOID", OpSwitch, "BACKUP_END", "PARAMETER_CHANGE", "RESTORE_POINT",
	"FPW_CHANGE", "END_OF_RECOVERY", "FPI_FOR_HINT", "FPI", "", "OVERWRITE_CONTRECORD",
}

var transactionBefore14 = operations{OpCommit, "PREPARE", OpAbort, OpCommitPrepared, OpAbortPrepared, "ASSIGNMENT"}

var databaseBefore15 = operations{"CREATE", "DROP"}

var heap2Before14 = operations{
	"REWRITE", "CLEAN", "FREEZE_PAGE", "CLEANUP_INFO", "VISIBLE", "MULTI_INSERT", "LOCK_UPDATED", "NEW_CID",
	0xD: "MULTI_INSERT+INIT",
}

var heap2Before17 = operations{
	"REWRITE", "PRUNE", "VACUUM", "FREEZE_PAGE", "VISIBLE", "MULTI_INSERT", "LOCK_UPDATED", "NEW_CID",
	0xD: "MULTI_INSERT+INIT",
}

var commitTSBefore14 = operations{"ZEROPAGE", "TRUNCATE", "SETTS"}

var unknownOperations = operations{
	"UNKNOWN (0)", "UNKNOWN (10)", "UNKNOWN (20)", "UNKNOWN (30)", "UNKNOWN (40)", "UNKNOWN (50)", "UNKNOWN (60)", "UNKNOWN (70)",
	"UNKNOWN (80)", "UNKNOWN (90)", "UNKNOWN (a0)", "UNKNOWN (b0)", "UNKNOWN (c0)", "UNKNOWN (d0)", "UNKNOWN (e0)", "UNKNOWN (f0)",
}
