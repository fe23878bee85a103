package pgfake

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// slowPipe returns a connection whose bytes take 10 ms each way.
func slowPipe() (client, server *Conn) {
	client, server = pipe("a:1", "b:2")
	for _, s := range []*stream{client.in, client.out} {
		s.delay = 10 * time.Millisecond
	}
	return client, server
}

func TestBytesAndTheEndArriveAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := slowPipe()
		start := time.Now()
		_, _ = client.Write([]byte("one"))
		_ = client.Close()
		got, err := io.ReadAll(server)
		if string(got) != "one" || err != nil || time.Since(start) != 10*time.Millisecond {
			t.Errorf("read %q, %v after %v", got, err, time.Since(start))
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close = %v", err)
		}
	})
}

func TestWritersNeverWait(t *testing.T) {
	client, server := pipe("a:1", "b:2")
	for range 100 {
		for _, c := range []*Conn{client, server} {
			if n, err := c.Write(make([]byte, 1<<16)); n != 1<<16 || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
		}
	}
}

func TestDeadlinesEndReadsExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := slowPipe()
		start := time.Now()
		_ = client.SetDeadline(start.Add(time.Second))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Read = %v after %v", err, time.Since(start))
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %v", err)
		}
		_ = client.SetDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { _, _ = server.Write([]byte("x")) })
		if n, err := client.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("Read without a deadline = %d, %v", n, err)
		}
		time.AfterFunc(time.Second, func() { _ = client.SetReadDeadline(time.Unix(1, 0)) })
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v after the deadline moved to the past", err)
		}
	})
}

func TestResetLosesWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := slowPipe()
		_, _ = server.Write([]byte("lost"))
		time.AfterFunc(time.Millisecond, server.abort)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read = %v", err)
		}
		if n, err := client.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write = %d, %v", n, err)
		}
	})
}

func TestQuietTellsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := slowPipe()
		var got []bool
		look := func() { got = append(got, client.Quiet()) }
		look()
		_, _ = server.Write([]byte("x"))
		look() // still under way
		time.Sleep(10 * time.Millisecond)
		look()
		_, _ = client.Read(make([]byte, 1))
		look()
		_ = server.Close()
		time.Sleep(10 * time.Millisecond)
		look()
		if want := []bool{true, true, false, true, false}; !slices.Equal(got, want) {
			t.Errorf("Quiet() = %v, want %v", got, want)
		}
	})
}

func TestSplitKeepsQuotedText(t *testing.T) {
	for sql, want := range map[string][]string{
		"":                                  nil,
		" ; /* x */ -- y":                   nil,
		"SELECT  1 ;":                       {"SELECT 1"},
		"a 'it''s;  x' ; b":                 {"a 'it''s;  x'", "b"},
		`a "q;q" /* c;c */ x`:               {`a "q;q" x`},
		"DO $$ BEGIN; END $$; x $t$;$$;$t$": {"DO $$ BEGIN; END $$", "x $t$;$$;$t$"},
		"a 'open":                           {"a 'open"},
		"SELECT $1;\n\tSELECT $2":           {"SELECT $1", "SELECT $2"},
	} {
		if got := split(sql); !slices.Equal(got, want) {
			t.Errorf("split(%q) = %q, want %q", sql, got, want)
		}
	}
}

func TestWritesAreToldByTheirText(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT 1": false, "select * from t for update": true, "SELECT nextval('s')": true,
		"SELECT * INTO x FROM t": true, "WITH a AS (SELECT 1) SELECT * FROM a": false,
		"WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a": true, "delete from t": true,
		"SHOW x": false, "BEGIN": false, "create table t ()": true,
	} {
		if got := writes(sql); got != want {
			t.Errorf("writes(%q) = %v, want %v", sql, got, want)
		}
	}
}

func TestPatternsMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, sql string
		want         bool
	}{
		{"SELECT  1;", "SELECT 1", true},
		{"SELECT 1", "SELECT 12", false},
		{"SELECT 1*", "SELECT 12", true},
		{"~^select \\d$", "select 7", true},
		{"COMMIT", "COMMIT", true},
	} {
		if got := matcher(tt.pattern)(tt.sql); got != tt.want {
			t.Errorf("matcher(%q)(%q) = %v, want %v", tt.pattern, tt.sql, got, tt.want)
		}
	}
}
