package vectors_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// FuzzRead feeds arbitrary bytes to the reader. What it accepts must be written and
// read back unchanged, and must replay without a panic.
func FuzzRead(f *testing.F) {
	f.Add([]byte(validDocument))
	f.Add([]byte(`{"contractVersion":"1","decisionFields":[],"suites":[null]}`))
	for i, s := range golden(f).Suites {
		if i%4 == 0 { // enough of every kind
			s.Ops = s.Ops[:min(4, len(s.Ops))]
			f.Add([]byte(write(f, vectors.NewDocument(s))))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := vectors.Read(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, throttlekit.ErrInvalid) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		written := write(t, doc)
		again, err := vectors.Read(bytes.NewReader([]byte(written)))
		if err != nil {
			t.Fatalf("what was written does not read: %v", err)
		}
		if rewritten := write(t, again); rewritten != written || len(again.Suites) != len(doc.Suites) {
			t.Fatalf("written\n%s\nand again\n%s", written, rewritten)
		}
		for i := range doc.Suites {
			if doc.Suites[i].Body == nil && !reflect.DeepEqual(doc.Suites[i], again.Suites[i]) {
				t.Fatalf("read back as %+v, want %+v", again.Suites[i], doc.Suites[i])
			}
		}
		report, err := vectors.Replay(t.Context(), doc, vectors.Memory())
		if err != nil || report.Passed+report.Failed+report.Skipped != len(doc.Suites) {
			t.Fatalf("%s, %v", report, err)
		}
	})
}

// transitions are one of each kind of record text.
func transitions(tb testing.TB) []throttlekit.Rule {
	tb.Helper()
	strategies := []throttlekit.Strategy{
		throttlekit.GCRA{Limit: 7, Period: time.Second, Burst: 3},
		throttlekit.TokenBucket{Capacity: 20, RefillPerSec: 3.5},
		throttlekit.FixedWindow{Limit: 5, Window: time.Second},
		throttlekit.SlidingWindow{Limit: 20, Window: time.Second, Buckets: 3},
		throttlekit.SlidingWindowLog{Limit: 5, Window: time.Second},
		throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarMonth, Offset: time.Hour},
		throttlekit.Quota{Limit: 5, Cadence: throttlekit.CalendarWeek},
		throttlekit.Quota{Limit: 5, Cadence: throttlekit.Fixed, Period: time.Hour, Anchor: -7},
		throttlekit.Quota{Limit: 5, Cadence: throttlekit.Rolling, Period: time.Hour, Buckets: 1},
	}
	rules := make([]throttlekit.Rule, len(strategies))
	for i, s := range strategies {
		rule, err := s.Rule()
		if err != nil {
			tb.Fatal(err)
		}
		rules[i] = rule
	}
	return rules
}

// FuzzDecode feeds arbitrary text to the record decoders. A store may hold a record that
// another program wrote, so whatever a decoder accepts must lead to sound decisions.
func FuzzDecode(f *testing.F) {
	rules := transitions(f)
	texts := []string{
		"1700000000500", "1e308", "-5", `{"tokens":4.5,"last":1700000000000}`, `{"tokens":-1e308,"last":1e308}`,
		`{"start":1700000000000,"count":3}`, `{"start":1e300,"count":1e300}`, `{"start":-1e300,"count":-1}`,
		`{"i":[-1,1700000,-1,1699999],"n":[0,4,0,2]}`, `{"i":[1e308,0.5,3],"n":[1e308,1e308,-1e308]}`,
		`{"i":[4,3],"n":[1,2]}`, "[1700000000000,1700000000000,1700000000400]", "[5,4,3]", "[]", "null", "[null]",
	}
	for i := range rules {
		for _, text := range texts {
			f.Add(uint8(i), []byte(text), int64(1_700_000_000_500), 1.)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, text []byte, now int64, cost float64) {
		if now < 0 || now > throttlekit.MaxSafe || !(cost > 0 && cost <= throttlekit.MaxSafe) {
			return
		}
		rule := rules[int(kind)%len(rules)]
		rec, err := rule.Decode(text)
		if err != nil {
			return
		}
		next, d, ttl := rule.Apply(rec, now, cost)
		sound(t, "Apply", rule, d)
		if d.Allowed != (ttl > 0) {
			t.Errorf("allowed %t with a time to live of %d", d.Allowed, ttl)
		}
		sound(t, "Peek", rule, rule.Peek(rec, now))
		rule.Forecast(rec, now, cost)
		if !d.Allowed {
			return
		}
		if _, err := rule.Encode(next); err != nil && !errors.Is(err, throttlekit.ErrInvalid) {
			t.Errorf("%s charges %g on %s at %d and cannot write %+v: %v", rule.Name(), cost, text, now, next, err)
		}
	})
}

// sound checks what every decision promises.
func sound(t *testing.T, call string, rule throttlekit.Rule, d throttlekit.Decision) {
	t.Helper()
	if d.Limit != rule.Limit() || d.Remaining < 0 || d.RetryAfterMillis < 0 || d.Allowed != (d.RetryAfterMillis == 0) {
		t.Errorf("%s of %s decides %+v", call, rule.Name(), d)
	}
}
