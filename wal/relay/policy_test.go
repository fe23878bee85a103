package relay

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestAPolicyIsReadAsPostgreSQLWritesIt(t *testing.T) {
	quorum := func(k int, names ...string) Policy { return Policy{Mode: ConfirmQuorum, K: k, Names: names} }
	for text, want := range map[string]Policy{
		"":                               {},
		" none ":                         {},
		"Receipt":                        {Mode: ConfirmReceipt},
		"ANY 1 (s1)":                     quorum(1, "s1"),
		"any 2(s1,s2 , s3)":              quorum(2, "s1", "s2", "s3"),
		"ANY 3 (*)":                      quorum(3),
		"ANY 2 (s1, *)":                  quorum(2),
		`ANY 1 ("*")`:                    quorum(1),
		`ANY 1 ("a, b", "c ""d"" )")`:    quorum(1, "a, b", `c "d" )`),
		`ANY 1 (" s1 ", 's2')`:           quorum(1, " s1 ", "'s2'"),
		"\tANY\n1\t( eu-west.1_a$ )\r\n": quorum(1, "eu-west.1_a$"),
	} {
		got, err := ParsePolicy(text)
		if err != nil || got.Mode != want.Mode || got.K != want.K || !slices.Equal(got.Names, want.Names) {
			t.Errorf("ParsePolicy(%q) = %+v, %v; want %+v", text, got, err, want)
			continue
		}
		if again, err := ParsePolicy(got.String()); err != nil || again.String() != got.String() {
			t.Errorf("ParsePolicy(%q) = %v, %v; want %v", got.String(), again, err, got)
		}
	}
}

func TestAPolicyThatCannotBeMeantIsRefused(t *testing.T) {
	for text, why := range map[string]string{
		"all":                           "not understood",
		"FIRST 1 (s1)":                  "not understood",
		"ANY (s1)":                      "not understood",
		"ANY 1 s1":                      "not understood",
		"ANY 1 (s1) (s2)":               "in quotes",
		"ANY 1 (s1":                     "not understood",
		"ANY 0 (s1)":                    "1 or more",
		"ANY -1 (s1)":                   "1 or more",
		"ANY one (s1)":                  "1 or more",
		"ANY 1 ()":                      "empty",
		"ANY 1 (s1,)":                   "empty",
		"ANY 1 (,s1)":                   "empty",
		`ANY 1 ("")`:                    "empty",
		`ANY 1 ("s1)`:                   "not closed",
		`ANY 1 ("s1" s2)`:               "follows",
		`ANY 1 (s"1)`:                   "in quotes",
		"ANY 1 (s1, s1)":                "twice",
		"ANY 2 (s1, S1)":                "twice",
		`ANY 2 (s1, "s1")`:              "twice",
		"ANY 3 (s1, s2)":                "only 2",
		"ANY 99999999999999999999 (s1)": "1 or more",
	} {
		if p, err := ParsePolicy(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("ParsePolicy(%q) = %v, %v; want an error with %q", text, p, err, why)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, text := range []string{"none", "receipt", "ANY 1 (s1)", `ANY 2 ("a, ""b", *, c)`, `any 1 (" a")`, `ANY 1 (")")`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		written, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var again Policy
		if err := again.UnmarshalText(written); err != nil {
			t.Fatalf("%q is read as %+v, and its text %q is not: %v", text, p, written, err)
		}
		if again.Mode != p.Mode || again.K != p.K || !slices.Equal(again.Names, p.Names) {
			t.Fatalf("%q is read as %+v, and its text %q as %+v", text, p, written, again)
		}
	})
}

func TestAQuorumIsWhatKHaveReachedInEachWay(t *testing.T) {
	of := []Confirmation{{Write: 50, Flush: 10, Apply: 5}, {Write: 40, Flush: 40, Apply: 40}, {Write: 60, Flush: 20, Apply: 0}}
	for k, want := range map[int]Confirmation{
		-1: {}, 0: {},
		1: {Write: 60, Flush: 40, Apply: 40},
		2: {Write: 50, Flush: 20, Apply: 5},
		3: {Write: 40, Flush: 10, Apply: 0},
		4: {},
	} {
		if got := quorum(k, slices.Clone(of)); got != want {
			t.Errorf("quorum(%d) = %+v, want %+v", k, got, want)
		}
	}
	if got := quorum(1, nil); got != (Confirmation{}) {
		t.Errorf("a quorum of nobody is %+v", got)
	}
}

// The k-th best is what at least k have reached, and not all of more.
func TestAQuorumIsCounted(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		of := make([]Confirmation, rnd.IntN(8))
		for i := range of {
			of[i] = Confirmation{Write: wal.LSN(rnd.IntN(5)), Flush: wal.LSN(rnd.IntN(5)), Apply: wal.LSN(rnd.IntN(5))}
		}
		k := 1 + rnd.IntN(8)
		got := quorum(k, slices.Clone(of))
		for what, position := range map[string]func(Confirmation) wal.LSN{
			"write": func(c Confirmation) wal.LSN { return c.Write },
			"flush": func(c Confirmation) wal.LSN { return c.Flush },
			"apply": func(c Confirmation) wal.LSN { return c.Apply },
		} {
			have, more := 0, 0
			for _, c := range of {
				if position(c) >= position(got) {
					have++
				}
				if position(c) > position(got) {
					more++
				}
			}
			if position(got) != 0 && have < k || more >= k {
				t.Fatalf("quorum(%d) of %+v = %+v: %s is reached by %d, and passed by %d", k, of, got, what, have, more)
			}
		}
	}
}
