package vectors_test

import (
	"os"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go/vectors"
)

// replay runs a document through a target and fails the test unless every suite passes.
func replay(t *testing.T, doc *vectors.Document, target vectors.Target) vectors.Report {
	t.Helper()
	report, err := vectors.Replay(t.Context(), doc, target)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if report.Passed != len(doc.Suites) {
		t.Errorf("%d of %d suites passed", report.Passed, len(doc.Suites))
	}
	return report
}

func golden(tb testing.TB) *vectors.Document {
	tb.Helper()
	doc, err := vectors.Golden()
	if err != nil {
		tb.Fatal(err)
	}
	return doc
}

func TestGoldenOnMemory(t *testing.T) {
	t.Parallel()
	t.Log(replay(t, golden(t), vectors.Memory()))
}

func TestReferenceTimelinesOnMemory(t *testing.T) {
	t.Parallel()
	f, err := os.Open("reference-timelines.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := vectors.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	report := replay(t, doc, vectors.Memory())
	if len(doc.Suites) != 120 || report.Checked != 4866 {
		t.Errorf("%d suites and %d checks, want 120 and 4866", len(doc.Suites), report.Checked)
	}
}

// Golden covers what implementations tend to get wrong; a suite that goes missing shows here.
func TestGoldenCovers(t *testing.T) {
	t.Parallel()
	doc := golden(t)
	topics := []string{
		"backward-clock", "from-zero", "large-epoch", "long-idle", "fractional-cost", "cost-above-limit",
		"cost-above-burst", "cost-above-capacity", "huge-limit", "edge", "fractional-window", "random",
	}
	kinds, seen, cadences := map[string]int{}, map[string]int{}, map[any]int{}
	for _, s := range doc.Suites {
		kinds[s.Strategy.Kind]++
		cadences[s.Strategy.Options["resetCadence"]]++
		for _, topic := range topics {
			if strings.Contains(s.Name, topic) {
				seen[topic]++
			}
		}
		if !strings.HasPrefix(s.Name, s.Strategy.Kind+"/") {
			t.Errorf("%s is a suite of %s", s.Name, s.Strategy.Kind)
		}
	}
	for _, kind := range vectors.Kinds() {
		if kinds[kind] < 10 {
			t.Errorf("%d suites of %s, want at least 10", kinds[kind], kind)
		}
	}
	for _, topic := range topics {
		if seen[topic] == 0 {
			t.Errorf("no suite about %s", topic)
		}
	}
	if len(cadences) != 6 { // five and none
		t.Errorf("cadences %v", cadences)
	}
	t.Logf("%d suites: %v", len(doc.Suites), kinds)
}

// Every strategy both allows and denies in its suites, and every suite of the golden
// document says something about time.
func TestGoldenIsNotOneSided(t *testing.T) {
	t.Parallel()
	for _, s := range golden(t).Suites {
		allowed := 0
		for _, op := range s.Ops {
			if op.Expect.Allowed {
				allowed++
			}
		}
		if allowed == 0 || allowed == len(s.Ops) {
			t.Errorf("%s: %d of %d ops allowed", s.Name, allowed, len(s.Ops))
		}
	}
}
