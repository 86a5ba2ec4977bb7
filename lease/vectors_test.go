package lease_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/lease"
	"github.com/throttlekit/throttlekit-go/vectors"
)

var update = flag.Bool("update", false, "write the expectations of testdata/vectors.json anew")

// leaseSuite is a suite of primitive "lease" in the format of package vectors.
type leaseSuite struct {
	Primitive     string       `json:"primitive"`
	Name          string       `json:"name"`
	Limit         int64        `json:"limit"`
	TTLMillis     int64        `json:"ttlMs"`
	WindowCoupled bool         `json:"windowCoupled"`
	Events        []leaseEvent `json:"events"`
}

type leaseEvent struct {
	Op        string       `json:"op"`
	Capacity  float64      `json:"capacity,omitempty"`
	ExpiresAt int64        `json:"expiresAt,omitempty"`
	Now       *int64       `json:"now,omitempty"`
	Cost      float64      `json:"cost,omitempty"`
	Expect    *leaseExpect `json:"expect,omitempty"`
}

type leaseExpect struct {
	NeedsRefresh bool           `json:"needsRefresh"`
	Decision     *leaseDecision `json:"decision,omitempty"`
}

type leaseDecision struct {
	Allowed      bool  `json:"allowed"`
	Limit        int64 `json:"limit"`
	Remaining    int64 `json:"remaining"`
	ResetAt      int64 `json:"resetAt"`
	RetryAfterMs int64 `json:"retryAfterMs"`
}

const vectorFile = "testdata/vectors.json"

// replay plays the events and hands over what each spend gave.
func (s *leaseSuite) replay(t *testing.T, each func(i int, got leaseExpect)) {
	t.Helper()
	spender, err := lease.NewSpender(lease.SpenderConfig{Limit: s.Limit, TTLMillis: s.TTLMillis, Carryover: !s.WindowCoupled})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range s.Events {
		if e.Op == "grant" {
			spender.Grant(e.Capacity, e.ExpiresAt)
			continue
		}
		got := leaseExpect{NeedsRefresh: true}
		if d, ok := spender.Spend(*e.Now, e.Cost); ok {
			got = leaseExpect{Decision: &leaseDecision{d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis, d.RetryAfterMillis}}
		}
		each(i, got)
	}
}

func TestGoldenVectors(t *testing.T) {
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := vectors.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	spends := 0
	for i := range doc.Suites {
		var suite leaseSuite
		if err := json.Unmarshal(doc.Suites[i].Body, &suite); err != nil {
			t.Fatal(err)
		}
		suite.replay(t, func(event int, got leaseExpect) {
			spends++
			want := suite.Events[event].Expect
			switch {
			case *update:
				suite.Events[event].Expect = &got
			case want == nil || got.NeedsRefresh != want.NeedsRefresh || (got.Decision == nil) != (want.Decision == nil),
				got.Decision != nil && *got.Decision != *want.Decision:
				t.Errorf("%s, event %d: %s, want %s", suite.Name, event, show(got), show(want))
			}
		})
		if doc.Suites[i].Body, err = json.Marshal(suite); err != nil {
			t.Fatal(err)
		}
	}
	if len(doc.Suites) != 6 || spends < 30 {
		t.Errorf("%d suites and %d spends are not all", len(doc.Suites), spends)
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

func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// The facts are those of the specification's §2, written down by hand.
func TestFactsOfTheVectors(t *testing.T) {
	t.Parallel()
	s := spender(t, lease.SpenderConfig{Limit: 5})
	expect := func(now int64, cost float64, remaining, reset int64, ok bool) {
		t.Helper()
		d, got := s.Spend(now, cost)
		want := throttlekit.Decision{Allowed: true, Limit: 5, Remaining: remaining, ResetAtMillis: reset}
		if got != ok || ok && d != want {
			t.Errorf("spending %v at %d: %+v %v", cost, now, d, got)
		}
	}
	s.Grant(5, 1000)
	expect(0, 2, 3, 1000, true)
	expect(1000, 1, 0, 0, false)
	s.Grant(5, 2000)
	expect(1000, 1, 4, 2000, true)
	expect(2000, 1, 0, 0, false)

	s.Reset()
	s.Grant(5, 2000)
	expect(0, 8, 0, 0, false)
	s.Grant(10, 2000)
	expect(0, 8, 7, 2000, true)

	s = spender(t, lease.SpenderConfig{Limit: 5, Carryover: true})
	s.Grant(5, 1000)
	expect(2000, 1, 4, 1000, true)
}
