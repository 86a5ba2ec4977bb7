package vectors_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

// door is a target whose behaviour a test writes down. A nil function does as memory does.
type door struct {
	open  func(vectors.Suite) error
	check func(now int64, cost float64, d *throttlekit.Decision) error
	close func() error
}

func (d door) Open(s vectors.Suite) (vectors.Session, error) {
	if d.open != nil {
		if err := d.open(s); err != nil {
			return nil, err
		}
	}
	session, err := vectors.Memory().Open(s)
	return doorSession{d, session}, err
}

type doorSession struct {
	door

	inner vectors.Session
}

func (s doorSession) Check(ctx context.Context, now int64, key string, cost float64) (throttlekit.Decision, error) {
	d, err := s.inner.Check(ctx, now, key, cost)
	if err == nil && s.check != nil {
		err = s.check(now, cost, &d)
	}
	return d, err
}

func (s doorSession) Close() error {
	if s.close != nil {
		return errors.Join(s.inner.Close(), s.close())
	}
	return s.inner.Close()
}

// fixed returns a suite of one fixed window that admits one unit and denies the next, at each time.
func fixedSuite(name string, times ...int64) vectors.Suite {
	s := suite(name, "fixedWindow", vectors.Options{"limit": 1., "windowMs": 10.})
	for _, now := range times {
		reset := now - now%10 + 10
		s.Ops = append(s.Ops,
			vectors.Op{Now: now, Cost: 1, Expect: yes(1, 0, reset)},
			vectors.Op{Now: now, Cost: 1, Expect: no(1, 0, reset, reset-now)})
	}
	return s
}

func run(t *testing.T, doc *vectors.Document, target vectors.Target) vectors.Report {
	t.Helper()
	report, err := vectors.Replay(t.Context(), doc, target)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestReplaySkipsByName(t *testing.T) {
	t.Parallel()
	budget := vectors.Suite{Primitive: "tokenBudget", Name: "b", Body: json.RawMessage(`{"primitive":"tokenBudget","name":"b","ops":7}`)}
	doc := vectors.NewDocument(
		fixedSuite("a", 10), budget,
		suite("c", "leakyBucket", nil, vectors.Op{Cost: 1, Expect: yes(1, 0, 0)}),
		suite("d", "gcra", vectors.Options{"limit": 1.}, vectors.Op{Cost: 1, Expect: yes(1, 0, 0)}),
	)
	r := run(t, doc, vectors.Memory())
	if r.Passed != 1 || r.Skipped != 2 || r.Failed != 1 || r.Checked != 2 || len(r.Suites) != 4 {
		t.Fatalf("%s: %+v", r, r.Suites)
	}
	for i, want := range []struct {
		outcome vectors.Outcome
		reason  string
	}{
		{vectors.Passed, ""},
		{vectors.Skipped, `nothing here replays the primitive "tokenBudget"`},
		{vectors.Skipped, `strategy kind "leakyBucket" is unknown here`},
		{vectors.Failed, "options.periodMs must be given"},
	} {
		if got := r.Suites[i]; got.Outcome != want.outcome || !strings.Contains(got.Reason, want.reason) || got.Name != doc.Suites[i].Name {
			t.Errorf("suite %d: %+v, want %s because %q", i, got, want.outcome, want.reason)
		}
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), `suite "d": options.periodMs must be given`) {
		t.Errorf("error %v", err)
	}
}

func TestReplayOfNothingIsAnError(t *testing.T) {
	t.Parallel()
	for _, doc := range []*vectors.Document{
		vectors.NewDocument(),
		vectors.NewDocument(suite("c", "other", nil, vectors.Op{Cost: 1, Expect: yes(1, 0, 0)})),
	} {
		if err := run(t, doc, vectors.Memory()).Err(); err == nil || !strings.Contains(err.Error(), "nothing was checked") {
			t.Errorf("error %v", err)
		}
	}
}

func TestReplayListsMismatches(t *testing.T) {
	t.Parallel()
	wrong := door{check: func(now int64, _ float64, d *throttlekit.Decision) error {
		if now == 20 {
			d.Remaining += 5
			d.ResetAtMillis--
		}
		return nil
	}}
	r := run(t, vectors.NewDocument(fixedSuite("a", 10, 20), fixedSuite("b", 30)), wrong)
	if r.Failed != 1 || r.Passed != 1 || r.Mismatched != 4 || len(r.Mismatches) != 4 || r.Checked != 6 {
		t.Fatalf("%s: %+v", r, r.Mismatches)
	}
	want := vectors.Mismatch{Suite: "a", Op: 2, Field: "remaining", Got: "5", Want: "0"}
	if r.Mismatches[0] != want {
		t.Errorf("first mismatch %+v, want %+v", r.Mismatches[0], want)
	}
	for _, want := range []string{
		"1 suites passed, 1 failed, 0 skipped; 6 ops checked, 4 fields differ",
		`suite "a" op 2: remaining is 5, want 0`, `suite "a" op 3: resetAt is 29, want 30`,
	} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to contain %q", err, want)
		}
	}
}

func TestReplayBoundsMismatches(t *testing.T) {
	t.Parallel()
	var times []int64
	for i := range int64(200) {
		times = append(times, 10*i)
	}
	wrong := door{check: func(_ int64, _ float64, d *throttlekit.Decision) error {
		d.Limit++
		return nil
	}}
	r := run(t, vectors.NewDocument(fixedSuite("a", times...)), wrong)
	if r.Mismatched != 400 || len(r.Mismatches) != vectors.MaxMismatches {
		t.Errorf("%d mismatches counted, %d listed", r.Mismatched, len(r.Mismatches))
	}
}

// A door whose costs are integers skips what it cannot carry, and says what it did until then.
func TestReplaySkipsWhatADoorCannotCarry(t *testing.T) {
	t.Parallel()
	integers := func(bad bool) door {
		return door{check: func(now int64, cost float64, d *throttlekit.Decision) error {
			if cost != float64(int64(cost)) {
				return fmt.Errorf("%w: cost %g is not an integer", throttlekit.ErrUnsupported, cost)
			}
			d.Allowed = d.Allowed != (bad && now == 10)
			return nil
		}}
	}
	s := fixedSuite("a", 10, 20)
	s.Ops[2].Cost = 0.5
	r := run(t, vectors.NewDocument(s, fixedSuite("b", 20)), integers(false))
	if got := r.Suites[0]; r.Skipped != 1 || r.Passed != 1 || got.Checked != 2 || !strings.Contains(got.Reason, "op 2: ") || r.Err() != nil {
		t.Errorf("%s: %+v, %v", r, got, r.Err())
	}
	// A wrong decision before that counts for more.
	r = run(t, vectors.NewDocument(s), integers(true))
	if r.Failed != 1 || r.Skipped != 0 || r.Err() == nil {
		t.Errorf("%s: %+v", r, r.Suites)
	}
	// The real golden suites: those named so, and no others.
	r = run(t, golden(t), integers(false))
	for _, got := range r.Suites {
		if (got.Outcome == vectors.Skipped) != strings.Contains(got.Name, "fractional-cost") {
			t.Errorf("%s %s: %s", got.Name, got.Outcome, got.Reason)
		}
	}
}

func TestReplayReportsBreakdowns(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection refused")
	for name, target := range map[string]vectors.Target{
		"open":  door{open: func(vectors.Suite) error { return broken }},
		"check": door{check: func(int64, float64, *throttlekit.Decision) error { return broken }},
		"close": door{close: func() error { return broken }},
	} {
		r := run(t, vectors.NewDocument(fixedSuite("a", 10), fixedSuite("b", 20)), target)
		if r.Failed != 2 || r.Passed != 0 || !strings.Contains(r.Suites[1].Reason, broken.Error()) || r.Err() == nil {
			t.Errorf("%s: %s: %+v", name, r, r.Suites)
		}
	}
	skipping := door{open: func(vectors.Suite) error { return throttlekit.ErrUnsupported }}
	if r := run(t, vectors.NewDocument(fixedSuite("a", 10)), skipping); r.Skipped != 1 {
		t.Errorf("%s: %+v", r, r.Suites)
	}
}

func TestReplayStopsWithItsContext(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	target := door{check: func(now int64, _ float64, _ *throttlekit.Decision) error {
		if now == 20 {
			cancel(enough)
			return ctx.Err()
		}
		return nil
	}}
	r, err := vectors.Replay(ctx, vectors.NewDocument(fixedSuite("a", 10), fixedSuite("b", 20), fixedSuite("c", 30)), target)
	if !errors.Is(err, enough) || r.Passed != 1 || len(r.Suites) != 1 {
		t.Errorf("%v after %s", err, r)
	}
	if _, err := vectors.Replay(ctx, vectors.NewDocument(fixedSuite("a", 10)), target); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
}

// Suites on one shared store do not see each other, whatever their names and keys are.
func TestStoreTargetKeepsSuitesApart(t *testing.T) {
	t.Parallel()
	clock := throttlekit.NewManualClock(0)
	store, err := throttlekit.NewMemoryStore(throttlekit.MemoryConfig{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	a, b, c := fixedSuite("x", 10), fixedSuite("x:y", 10), fixedSuite("2:x", 10)
	a.Key, b.Key, c.Key = "y:z", "z", "y:z"
	replay(t, vectors.NewDocument(a, b, c), vectors.Store(store, clock, "run"))
	if r := run(t, vectors.NewDocument(a), vectors.Store(store, clock, "other")); r.Passed != 1 {
		t.Errorf("under another prefix: %s", r)
	}
	if r := run(t, vectors.NewDocument(a), vectors.Store(store, clock, "run")); r.Passed != 0 {
		t.Errorf("the same keys again: %s", r)
	}
	replay(t, golden(t), vectors.Store(store, clock, "run"))
}

func TestOutcomeString(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]vectors.Outcome{
		"passed": vectors.Passed, "failed": vectors.Failed, "skipped": vectors.Skipped, "Outcome(0)": 0,
	} {
		if o.String() != want {
			t.Errorf("%q, want %q", o, want)
		}
	}
}
