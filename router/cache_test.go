package router_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/heliosdb/helios/router"
)

func TestTheSameTextIsTheSameStatement(t *testing.T) {
	c := router.NewCache(16)
	a, b := c.Get("SELECT 1"), c.Get(strings.Clone("SELECT 1"))
	if a != b {
		t.Errorf("Get returned two statements for one text: %p, %p", a, b)
	}
	if other := c.Get("SELECT 2"); other == a || other.SQL != "SELECT 2" {
		t.Errorf("Get(%q) = %+v", "SELECT 2", other)
	}
	if got := c.Len(); got != 2 {
		t.Errorf("Len() = %d, want 2", got)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	for _, entries := range []int{-1, 0, 1, 4, 5, 100, 1000} {
		c := router.NewCache(entries)
		for i := range 10_000 {
			sql := fmt.Sprintf("SELECT %d", i)
			if got := c.Get(sql).SQL; got != sql {
				t.Fatalf("Get(%q).SQL = %q", sql, got)
			}
		}
		if got, limit := c.Len(), 2*max(entries, 4); got > limit || got < entries {
			t.Errorf("NewCache(%d) holds %d statements, want at least that many and at most %d", entries, got, limit)
		}
	}
}

func TestLongTextsAreNotKept(t *testing.T) {
	c := router.NewCache(16)
	sql := "INSERT INTO t VALUES (1)" + strings.Repeat(", (1)", 2000)
	if got := c.Get(sql); got.Class != router.Write || got.SQL != sql {
		t.Errorf("Get(long text): class %v, want write", got.Class)
	}
	if got := c.Len(); got != 0 {
		t.Errorf("Len() = %d after a text of %d bytes, want 0", got, len(sql))
	}
}

func TestWhatIsAskedForOftenStays(t *testing.T) {
	c := router.NewCache(4) // one set
	hot := c.Get("SELECT hot")
	for i := range 100 {
		c.Get(fmt.Sprintf("SELECT %d", i))
		if c.Get("SELECT hot") != hot {
			t.Fatalf("the statement in use was given up after %d others", i+1)
		}
	}
}

func TestWhatWasLearnedStays(t *testing.T) {
	c := router.NewCache(4) // one set
	s := c.Get("SELECT * FROM view_that_writes")
	if s.Learned() {
		t.Error("Learned() = true before anything was learned")
	}
	s.Learn()
	for i := range 1000 {
		c.Get(fmt.Sprintf("SELECT %d", i))
	}
	if got := c.Get("SELECT * FROM view_that_writes"); !got.Learned() {
		t.Error("Learned() = false after other statements came by")
	}
	for i := range 1000 { // a set of learned statements still takes new ones
		c.Get(fmt.Sprintf("SELECT %d", i)).Learn()
	}
	if got := c.Get("SELECT 1").SQL; got != "SELECT 1" {
		t.Errorf("Get(%q).SQL = %q", "SELECT 1", got)
	}
}

func TestTheCacheServesManyAtOnce(t *testing.T) {
	c := router.NewCache(64)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5_000 {
				sql := fmt.Sprintf("SELECT %d", (i*7+g)%200)
				if got := c.Get(sql); got.SQL != sql || got.Class != router.Read {
					t.Errorf("Get(%q) = %+v", sql, got)
				}
				if i%100 == 0 {
					c.Get(sql).Learn()
				}
			}
		})
	}
	wg.Wait()
	if got := c.Len(); got > 64 {
		t.Errorf("Len() = %d, want at most 64", got)
	}
}

func TestACacheHitAllocatesNothing(t *testing.T) {
	c := router.NewCache(16)
	c.Get(ormQuery)
	if n := testing.AllocsPerRun(1000, func() { c.Get(ormQuery) }); n != 0 {
		t.Errorf("a hit allocates %v times, want 0", n)
	}
}

func BenchmarkCache(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("statements=%d", n), func(b *testing.B) {
			c := router.NewCache(4096)
			texts := make([]string, n)
			for i := range texts {
				texts[i] = ormQuery + fmt.Sprint(i)
				c.Get(texts[i])
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c.Get(texts[i])
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}
