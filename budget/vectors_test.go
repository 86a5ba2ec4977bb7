package budget_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/budget"
	"github.com/throttlekit/throttlekit-go/vectors"
)

var update = flag.Bool("update", false, "write the expectations of testdata/vectors.json anew")

// suite is one of primitive "tokenBudget" in the format of package vectors.
type suite struct {
	Primitive string `json:"primitive"`
	Name      string `json:"name"`
	Options   struct {
		Budget   float64 `json:"budget"`
		WindowMs float64 `json:"windowMs"`
	} `json:"options"`
	Ops []struct {
		Now    int64     `json:"now"`
		Tokens int64     `json:"tokens"`
		Expect *decision `json:"expect"`
	} `json:"ops"`
}

type decision struct {
	Allowed      bool  `json:"allowed"`
	Limit        int64 `json:"limit"`
	Remaining    int64 `json:"remaining"`
	ResetAt      int64 `json:"resetAt"`
	RetryAfterMs int64 `json:"retryAfterMs"`
}

func (s *suite) budget() *budget.Budget {
	width := time.Duration(s.Options.WindowMs * float64(time.Millisecond))
	return &budget.Budget{Windows: []budget.Window{{Limit: s.Options.Budget, Width: width}}}
}

const vectorFile = "testdata/vectors.json"

func TestGoldenVectors(t *testing.T) {
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := vectors.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	debits := 0
	for i := range doc.Suites {
		var s suite
		if err := json.Unmarshal(doc.Suites[i].Body, &s); err != nil {
			t.Fatal(err)
		}
		for place := range places(t, s.budget(), throttlekit.NewManualClock(0)) {
			clock := throttlekit.NewManualClock(0)
			m := meter(t, places(t, s.budget(), clock)[place])
			for j := range s.Ops {
				op := &s.Ops[j]
				clock.Set(op.Now)
				d := debit(t, m, "k", op.Tokens)
				got := decision{d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis, d.RetryAfterMillis}
				debits++
				switch {
				case *update:
					op.Expect = &got
				case op.Expect == nil || got != *op.Expect:
					t.Errorf("%s in %s, op %d: %+v, want %+v", s.Name, place, j, got, op.Expect)
				}
			}
		}
		if doc.Suites[i].Body, err = json.Marshal(s); err != nil {
			t.Fatal(err)
		}
	}
	if len(doc.Suites) != 5 || debits != 3*24 {
		t.Errorf("%d suites and %d debits are not all", len(doc.Suites), debits)
	}
	if *update {
		var out bytes.Buffer
		if err := vectors.Write(&out, doc); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The facts are those of the specification's §1.1, written down by hand.
func TestFactsOfTheVectors(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	var m *budget.Meter
	expect := func(now, tokens int64, allowed bool, limit, remaining, reset, retry int64) {
		t.Helper()
		clock.Set(now)
		want := throttlekit.Decision{Allowed: allowed, Limit: limit, Remaining: remaining, ResetAtMillis: reset, RetryAfterMillis: retry}
		if got := debit(t, m, "k", tokens); got != want {
			t.Errorf("%d tokens at %d: %+v, want %+v", tokens, now, got, want)
		}
	}
	m = meter(t, budget.Config{Clock: clock, Budget: &budget.Budget{Windows: []budget.Window{{Limit: 5, Width: minute}}}})
	for left := int64(4); left >= 0; left-- {
		expect(0, 1, true, 5, left, 60_000, 0)
	}
	expect(0, 1, false, 5, 0, 60_000, 60_000)

	m = meter(t, budget.Config{Clock: clock, Budget: &budget.Budget{Windows: []budget.Window{{Limit: 100, Width: minute}}}})
	expect(0, 80, true, 100, 20, 60_000, 0)
	expect(0, 50, true, 100, 0, 60_000, 0)
	expect(0, 1, false, 100, 0, 60_000, 60_000)

	m = meter(t, budget.Config{Clock: clock, Budget: &budget.Budget{Windows: []budget.Window{{Limit: 10, Width: time.Second}}}})
	expect(0, 10, true, 10, 0, 1000, 0)
	expect(500, 1, false, 10, 0, 1000, 500)
	expect(1000, 6, true, 10, 4, 2000, 0)
	expect(1999, 4, true, 10, 0, 2000, 0)
	expect(2000, 1, true, 10, 9, 3000, 0)
}
