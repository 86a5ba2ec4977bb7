package vectors

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// MaxMismatches is how many mismatches a [Report] lists; it counts the others.
const MaxMismatches = 100

// Report is the outcome of a [Replay].
type Report struct {
	// Passed, Failed and Skipped count suites.
	Passed, Failed, Skipped int
	// Checked counts ops whose decision was compared.
	Checked int
	// Suites has one result per suite, in the document's order.
	Suites []SuiteResult
	// Mismatched counts fields that differ, and Mismatches has the first of them.
	Mismatched int
	Mismatches []Mismatch
}

// SuiteResult is the outcome of one suite.
type SuiteResult struct {
	Primitive, Name string
	Outcome         Outcome
	// Reason says why a suite was skipped, or what kept a failed one from its end. It is
	// empty for a suite that passed and for one whose decisions alone are wrong.
	Reason string
	// Checked counts the suite's ops whose decision was compared.
	Checked int

	differs bool // a decision was wrong
}

// Outcome says how a suite went. The zero value is no outcome.
type Outcome int

// The outcomes of a suite.
const (
	// Passed means that every decision was as expected.
	Passed Outcome = iota + 1
	// Failed means that a decision was not, or that the target broke down.
	Failed
	// Skipped means that the target cannot run the suite, or not all of it.
	Skipped
)

// String is the outcome in lower case.
func (o Outcome) String() string {
	switch o {
	case Passed:
		return "passed"
	case Failed:
		return "failed"
	case Skipped:
		return "skipped"
	default:
		return "Outcome(" + strconv.Itoa(int(o)) + ")"
	}
}

// Mismatch is one field of one decision that differs from its expectation.
type Mismatch struct {
	// Suite is the suite's name, and Op the index of the op in it, from 0.
	Suite string
	Op    int
	// Field is one of [DecisionFields]; Got and Want are its values.
	Field, Got, Want string
}

// String reads `suite "name" op 3: remaining is 4, want 5`.
func (m Mismatch) String() string {
	return fmt.Sprintf("suite %q op %d: %s is %s, want %s", m.Suite, m.Op, m.Field, m.Got, m.Want)
}

// String sums the report up in one line.
func (r Report) String() string {
	return fmt.Sprintf("%d suites passed, %d failed, %d skipped; %d ops checked, %d fields differ",
		r.Passed, r.Failed, r.Skipped, r.Checked, r.Mismatched)
}

// Err is nil if no suite failed and at least one op was checked. Otherwise it says
// what went wrong first. Skipped suites are no failure.
func (r Report) Err() error {
	const most = 5
	var lines []string
	if r.Failed == 0 && r.Checked == 0 {
		lines = append(lines, "nothing was checked")
	}
	for _, m := range r.Mismatches[:min(most, len(r.Mismatches))] {
		lines = append(lines, m.String())
	}
	broken := 0
	for _, s := range r.Suites {
		if s.Outcome == Failed && s.Reason != "" && broken < most {
			lines = append(lines, fmt.Sprintf("suite %q: %s", s.Name, s.Reason))
			broken++
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("vectors: %s\n\t%s", r, strings.Join(lines, "\n\t"))
}

// compare lists the fields in which two decisions differ.
func (r *Report) compare(suite string, op int, got, want throttlekit.Decision) (differs bool) {
	r.Checked++
	if got == want {
		return false
	}
	gotValues, wantValues := values(got), values(want)
	for i, field := range DecisionFields() {
		if gotValues[i] == wantValues[i] {
			continue
		}
		r.Mismatched++
		if len(r.Mismatches) < MaxMismatches {
			r.Mismatches = append(r.Mismatches, Mismatch{suite, op, field, gotValues[i], wantValues[i]})
		}
	}
	return true
}

// values are a decision's fields as text, in the order of DecisionFields.
func values(d throttlekit.Decision) [5]string {
	n := func(x int64) string { return strconv.FormatInt(x, 10) }
	return [5]string{
		strconv.FormatBool(d.Allowed), n(d.Limit), n(d.Remaining), n(d.ResetAtMillis), n(d.RetryAfterMillis),
	}
}

// add counts the result of a suite in. A wrong decision counts for more than whatever
// kept the suite from its end.
func (r *Report) add(s SuiteResult, err error) {
	if err != nil {
		s.Reason = err.Error()
	}
	switch {
	case err == nil && !s.differs:
		s.Outcome = Passed
		r.Passed++
	case !s.differs && errors.Is(err, throttlekit.ErrUnsupported):
		s.Outcome = Skipped
		r.Skipped++
	default:
		s.Outcome = Failed
		r.Failed++
	}
	r.Suites = append(r.Suites, s)
}
