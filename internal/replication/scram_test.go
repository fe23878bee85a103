package replication_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
)

func verifier(t testing.TB, password string) replication.Verifier {
	t.Helper()
	v, err := replication.NewVerifier(password)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAVerifierIsReadAsItIsPrinted(t *testing.T) {
	want := verifier(t, "secret")
	got, err := replication.ParseVerifier(want.String())
	if err != nil || got.String() != want.String() || got.StoredKey != want.StoredKey || got.ServerKey != want.ServerKey {
		t.Errorf("ParseVerifier(%s) = %s, %v", want, got, err)
	}
	if again := verifier(t, "secret"); bytes.Equal(again.Salt, want.Salt) || again.StoredKey == want.StoredKey {
		t.Error("two verifiers of one password have the same salt")
	}
}

func TestAnEmptyPasswordHasNoVerifier(t *testing.T) {
	if v, err := replication.NewVerifier(""); err == nil {
		t.Errorf("NewVerifier(\"\") = %s", v)
	}
}

func TestWhatIsNoVerifierIsRefusedAndNotRepeated(t *testing.T) {
	good := verifier(t, "secret").String()
	for name, text := range map[string]string{
		"empty":            "",
		"password":         "secret",
		"MD5":              "md5a3556571e93b0d20722ba62be61e8c2d",
		"no iterations":    strings.Replace(good, "4096", "", 1),
		"zero iterations":  strings.Replace(good, "4096", "0", 1),
		"signed":           strings.Replace(good, "4096", "+1", 1),
		"no salt":          good[:strings.Index(good, ":")+1] + good[strings.LastIndex(good, "$"):],
		"no keys":          good[:strings.LastIndex(good, "$")],
		"one key":          good[:strings.LastIndex(good, ":")],
		"short key":        good[:len(good)-4],
		"something behind": good + "=",
	} {
		if v, err := replication.ParseVerifier(text); err == nil {
			t.Errorf("%s: ParseVerifier(%q) = %s, want an error", name, text, v)
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error %q repeats what is secret", name, err)
		}
	}
}

func FuzzParseVerifier(f *testing.F) {
	f.Add(verifier(f, "secret").String())
	f.Add("SCRAM-SHA-256$1:YQ==$:")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := replication.ParseVerifier(text)
		if err != nil {
			return
		}
		again, err := replication.ParseVerifier(v.String())
		if err != nil || again.String() != v.String() {
			t.Fatalf("ParseVerifier(%q) = %s, which reads as %s, %v", text, v, again, err)
		}
	})
}

func TestPostgreSQLTakesVerifiersFromHereAndTheOtherWayRound(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{TLS: true})
	n := c.Primary()
	ctx := pgtest.Context(t)
	const password = "sécret"
	conn := n.Conn(t)
	exec := func(sql string) {
		t.Helper()
		_, err := conn.Exec(ctx, sql)
		pgtest.OK(t, err)
	}
	exec("CREATE ROLE ours REPLICATION LOGIN PASSWORD '" + verifier(t, password).String() + "'")
	exec("CREATE ROLE theirs REPLICATION LOGIN PASSWORD '" + password + "'")
	cfg, err := pgconn.ParseConfig(n.DSN())
	pgtest.OK(t, err)
	cfg.User, cfg.Password = "ours", password
	client, err := replication.Connect(ctx, cfg)
	pgtest.OK(t, err)
	pgtest.OK(t, client.Close())

	var text string
	pgtest.OK(t, conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = 'theirs'").Scan(&text))
	theirs, err := replication.ParseVerifier(text)
	pgtest.OK(t, err)
	a, ca := authority(t)
	server := secured(t, a, replication.Password)
	server.Verifier = func(string) (replication.Verifier, bool) { return theirs, true }
	addr := serve(t, server, newSender().handle)
	dsn := "postgres://theirs@" + addr + "/replication?sslmode=verify-full&sslrootcert=" + ca
	pgtest.OK(t, try(t, dsn, password))
	if err := try(t, dsn, password+"!"); err == nil {
		t.Error("another password is good enough")
	}
}

func TestAPasswordIsPreparedAsPostgreSQLDoesIt(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Settings: map[string]string{"password_encryption": "scram-sha-256"}})
	conn := c.Primary().Conn(t)
	ctx := pgtest.Context(t)
	for name, password := range map[string]string{
		"ASCII":                      "secret",
		"control character":          "sec\tret",
		"composed":                   "s\u00e9cret",
		"decomposed":                 "se\u0301cret",
		"compatibility":              "\uff53\u2460\ufb01",
		"soft hyphen":                "se\u00adcret",
		"zero width space":           "se\u200bcret",
		"wide space":                 "se\u3000cret",
		"nothing but soft hyphens":   "\u00ad\u00ad",
		"private use":                "se\ue000cret",
		"line separator":             "se\u2028cr\ufb01et",
		"direction mark":             "\u200fse\ufb01cret",
		"non-character":              "se\ufb01cret\ufffe",
		"Hebrew":                     "\u05e9\u05dc\u05d5\u05dd",
		"Hebrew and Latin":           "\u05e9x\ufb01\u05dd",
		"Hebrew that ends otherwise": "\u05e9\ufb011",
		"Arabic":                     "\u0633\u0644\u0627\u0645",
		"Arabic with digits":         "\u0633\u06441",
		"emoji":                      "\U0001f600",
		"Chinese":                    "\u5bc6\u7801",
		"tag":                        "se\U000e0001\ufb01",
		"object replacement":         "\ufffc\ufb01",
		"math letter":                "\U0001d400",
		"variation selector":         "a\ufe0f",
	} {
		_, err := conn.Exec(ctx, "CREATE ROLE x PASSWORD '"+password+"'")
		pgtest.OK(t, err)
		var text string
		pgtest.OK(t, conn.QueryRow(ctx, "SELECT rolpassword FROM pg_authid WHERE rolname = 'x'").Scan(&text))
		_, err = conn.Exec(ctx, "DROP ROLE x")
		pgtest.OK(t, err)
		want, err := replication.ParseVerifier(text)
		pgtest.OK(t, err)
		if got := replication.VerifierWithSalt(password, want.Salt, want.Iterations); got.String() != want.String() {
			t.Errorf("%s: %q (%+q) has the verifier %s, want PostgreSQL's %s", name, password, password, got, want)
		}
	}
}
