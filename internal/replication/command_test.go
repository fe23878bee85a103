package replication_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
)

func TestCommandsAreReadAsTheyAreMeant(t *testing.T) {
	long := strings.Repeat("x", 62) + "é"
	for text, want := range map[string]replication.Command{
		"IDENTIFY_SYSTEM":                               replication.IdentifySystem{},
		" \tIDENTIFY_SYSTEM\n;\r":                       replication.IdentifySystem{},
		"SHOW wal_segment_size":                         replication.Show{Name: "wal_segment_size"},
		"SHOW TimeZone":                                 replication.Show{Name: "timezone"},
		`SHOW "a B".c . d`:                              replication.Show{Name: "a B.c.d"},
		"TIMELINE_HISTORY 4294967295":                   replication.TimelineHistory{Timeline: 1<<32 - 1},
		`CREATE_REPLICATION_SLOT "A" PHYSICAL`:          replication.CreateSlot{Name: "A"},
		"CREATE_REPLICATION_SLOT " + long + " PHYSICAL": replication.CreateSlot{Name: long[:62]},
		`CREATE_REPLICATION_SLOT "pg_walreceiver_7" TEMPORARY PHYSICAL RESERVE_WAL`:   replication.CreateSlot{Name: "pg_walreceiver_7", Temporary: true, Reserve: true},
		`CREATE_REPLICATION_SLOT a TEMPORARY PHYSICAL (RESERVE_WAL)`:                  replication.CreateSlot{Name: "a", Temporary: true, Reserve: true},
		`CREATE_REPLICATION_SLOT a PHYSICAL (reserve_wal 'FALSE')`:                    replication.CreateSlot{Name: "a"},
		`CREATE_REPLICATION_SLOT a PHYSICAL ("reserve_wal" 1);`:                       replication.CreateSlot{Name: "a", Reserve: true},
		`CREATE_REPLICATION_SLOT a PHYSICAL (RESERVE_WAL off)`:                        replication.CreateSlot{Name: "a"},
		`CREATE_REPLICATION_SLOT a LOGICAL pgoutput (SNAPSHOT 'nothing', TWO_PHASE);`: replication.CreateSlot{Name: "a", Logical: true},
		`CREATE_REPLICATION_SLOT a TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT`:      replication.CreateSlot{Name: "a", Temporary: true, Logical: true},
		"READ_REPLICATION_SLOT \"\"":                                                  replication.ReadSlot{},
		`READ_REPLICATION_SLOT "a""B"""`:                                              replication.ReadSlot{Name: `a"B"`},
		"DROP_REPLICATION_SLOT a":                                                     replication.DropSlot{Name: "a"},
		"DROP_REPLICATION_SLOT a WAIT":                                                replication.DropSlot{Name: "a", Wait: true},
		"START_REPLICATION 16/b374D848":                                               replication.StartReplication{At: 0x16_B374D848},
		"START_REPLICATION PHYSICAL 0/0 TIMELINE 3;":                                  replication.StartReplication{Timeline: 3},
		"START_REPLICATION 0/0TIMELINE 3":                                             replication.StartReplication{Timeline: 3},
		`START_REPLICATION SLOT "a$1" PHYSICAL 0/1`:                                   replication.StartReplication{Slot: "a$1", At: 1},
		`START_REPLICATION 0/1 TIMELINE 2 (frames '1', "Who" 'it''s', dark, n 7)`: replication.StartReplication{
			At: 1, Timeline: 2, Options: map[string]string{"frames": "1", "Who": "it's", "dark": "", "n": "7"},
		},
		`START_REPLICATION SLOT a LOGICAL 0/0 (proto_version '1', publication_names '"p"')`: replication.StartReplication{
			Slot: "a", Logical: true, Options: map[string]string{"proto_version": "1", "publication_names": `"p"`},
		},
		"BASE_BACKUP": replication.BaseBackup{},
		"BASE_BACKUP ( LABEL 'x;y', PROGRESS, WAL );": replication.BaseBackup{},
		"UPLOAD_MANIFEST": replication.UploadManifest{},
		"ALTER_REPLICATION_SLOT a ( FAILOVER true );": replication.AlterSlot{Name: "a"},
		"SELECT 'x":          replication.Unknown{Text: "SELECT 'x"},
		"identify_system":    replication.Unknown{Text: "identify_system"},
		`"IDENTIFY_SYSTEM"`:  replication.Unknown{Text: `"IDENTIFY_SYSTEM"`},
		"PHYSICAL":           replication.Unknown{Text: "PHYSICAL"},
		"-- IDENTIFY_SYSTEM": replication.Unknown{Text: "-- IDENTIFY_SYSTEM"},
		"":                   replication.Unknown{},
	} {
		got, err := replication.ParseCommand(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseCommand(%q) = %#v, %v; want %#v", text, got, err, want)
		}
	}
}

// refused are texts that are no commands though they begin like some.
func refused() map[string]string {
	const syntax = "syntax error"
	return map[string]string{
		"IDENTIFY_SYSTEM x":                               syntax,
		"IDENTIFY_SYSTEM;;":                               syntax,
		"IDENTIFY_SYSTEM -- x":                            syntax,
		"IDENTIFY_SYSTEM /* x */":                         syntax,
		"SHOW":                                            syntax,
		"SHOW TIMELINE":                                   syntax,
		"TIMELINE_HISTORY":                                syntax,
		"TIMELINE_HISTORY x":                              syntax,
		"TIMELINE_HISTORY -1":                             syntax,
		"TIMELINE_HISTORY 0":                              "invalid timeline 0",
		"READ_REPLICATION_SLOT 'a'":                       syntax,
		"READ_REPLICATION_SLOT PHYSICAL":                  syntax,
		`READ_REPLICATION_SLOT "a`:                        "unterminated quoted string",
		"DROP_REPLICATION_SLOT a wait":                    syntax,
		"CREATE_REPLICATION_SLOT a":                       syntax,
		"CREATE_REPLICATION_SLOT a PHYSICAL TEMPORARY":    syntax,
		"CREATE_REPLICATION_SLOT a LOGICAL":               syntax,
		"START_REPLICATION":                               syntax,
		"START_REPLICATION SLOT 1a PHYSICAL 0/1":          syntax,
		"START_REPLICATION 0 / 1":                         syntax,
		"START_REPLICATION G/1":                           syntax,
		"START_REPLICATION 0/1 TIMELINE":                  syntax,
		"START_REPLICATION 0/1 TIMELINE 0":                "invalid timeline 0",
		"START_REPLICATION SLOT a LOGICAL 0/0 (a 'b'":     syntax,
		"START_REPLICATION SLOT a LOGICAL 0/0 (a 'b":      "unterminated quoted string",
		"START_REPLICATION SLOT a LOGICAL 0/0 TIMELINE 1": syntax,
		"BASE_BACKUP (LABEL 'x":                           "unterminated quoted string",
		"'x":                                              "unterminated quoted string",
	}
}

// refusedHere are those of them that older versions of PostgreSQL do not know,
// take for something else, or say otherwise.
func refusedHere() map[string]string {
	return map[string]string{
		"CREATE_REPLICATION_SLOT a PHYSICAL (RESERVE_WAL, RESERVE_WAL)": "conflicting or redundant options",
		"CREATE_REPLICATION_SLOT a PHYSICAL (RESERVE_WAL 'maybe')":      "reserve_wal requires a Boolean value",
		"CREATE_REPLICATION_SLOT a PHYSICAL (FOO)":                      "unrecognized option: foo",
		"CREATE_REPLICATION_SLOT a PHYSICAL ()":                         "syntax error",
		"TIMELINE_HISTORY 4294967296":                                   "invalid timeline 4294967296",
		"START_REPLICATION 0/123456789":                                 "invalid streaming start location",
		"UPLOAD_MANIFEST x":                                             "syntax error",
		"ALTER_REPLICATION_SLOT":                                        "syntax error",
	}
}

func TestWhatIsNoCommandIsRefusedInPostgreSQLsWords(t *testing.T) {
	for _, table := range []map[string]string{refused(), refusedHere()} {
		for text, want := range table {
			got, err := replication.ParseCommand(text)
			complaint, ok := errors.AsType[*replication.Error](err)
			if !ok || complaint.Code != "42601" || complaint.Message != want {
				t.Errorf("ParseCommand(%q) = %#v, %v; want %q", text, got, err, want)
			}
		}
	}
}

func TestPostgreSQLRefusesTheSameCommands(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{}).Primary()
	cfg, err := pgconn.ParseConfig(n.DSN())
	pgtest.OK(t, err)
	cfg.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(pgtest.Context(t), cfg)
	pgtest.OK(t, err)
	t.Cleanup(func() { conn.Close(t.Context()) })
	major := 0
	fmt.Sscan(conn.ParameterStatus("server_version"), &major)
	for text, want := range refused() {
		if first, _, _ := strings.Cut(text, " "); major < 15 && (first == "READ_REPLICATION_SLOT" || first == "BASE_BACKUP" || strings.HasPrefix(text, "'")) {
			continue
		}
		_, err := conn.Exec(pgtest.Context(t), text).ReadAll()
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "42601" || pg.Message != want {
			t.Errorf("PostgreSQL says %v to %q, want %q", err, text, want)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	for text := range refused() {
		f.Add(text)
	}
	f.Add(`START_REPLICATION SLOT "a" PHYSICAL 0/1 TIMELINE 2 (frames '1', x 'it''s')`)
	f.Add("CREATE_REPLICATION_SLOT a TEMPORARY PHYSICAL (RESERVE_WAL)")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := replication.ParseCommand(text)
		if err != nil {
			if complaint, ok := errors.AsType[*replication.Error](err); !ok || c != nil {
				t.Fatalf("ParseCommand(%q) = %#v, %v", text, c, complaint)
			}
			return
		}
		printed, ok := printCommand(c)
		if !ok {
			return
		}
		again, err := replication.ParseCommand(printed)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%q is %#v, printed %q, which is %#v, %v", text, c, printed, again, err)
		}
	})
}

// printCommand writes a command as it would be sent; false for one that keeps too
// little of itself.
func printCommand(c replication.Command) (string, bool) {
	switch c := c.(type) {
	case replication.IdentifySystem:
		return "IDENTIFY_SYSTEM", true
	case replication.TimelineHistory:
		return "TIMELINE_HISTORY " + c.Timeline.String(), true
	case replication.ReadSlot:
		return `READ_REPLICATION_SLOT ` + quoted(c.Name), true
	case replication.DropSlot:
		return `DROP_REPLICATION_SLOT ` + quoted(c.Name) + when(c.Wait, " WAIT"), true
	case replication.CreateSlot:
		return `CREATE_REPLICATION_SLOT ` + quoted(c.Name) + when(c.Temporary, " TEMPORARY") +
			when(c.Logical, " LOGICAL x") + when(!c.Logical, " PHYSICAL") + when(c.Reserve, " (RESERVE_WAL)"), true
	case replication.StartReplication:
		var options []string
		for name, value := range c.Options {
			options = append(options, fmt.Sprintf(`%s '%s'`, quoted(name), strings.ReplaceAll(value, "'", "''")))
		}
		return "START_REPLICATION" + when(c.Slot != "", ` SLOT `+quoted(c.Slot)) + when(c.Logical, " LOGICAL") + " " + c.At.String() +
			when(c.Timeline != 0, " TIMELINE "+c.Timeline.String()) + when(options != nil, " ("+strings.Join(options, ",")+")"), true
	}
	return "", false
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func when(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}
