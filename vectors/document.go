package vectors

import (
	"encoding/json"
	"fmt"
	"slices"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// ContractVersion is the version of the document format that this package reads and writes.
const ContractVersion = "1"

// RateLimit is the primitive of suites that check a strategy, the one that this package replays.
const RateLimit = "rateLimit"

// DecisionFields are the names of a decision's fields in a document, in their order there.
func DecisionFields() []string {
	return []string{"allowed", "limit", "remaining", "resetAt", "retryAfterMs"}
}

// Document is a set of suites. [NewDocument] and [Read] return valid ones.
type Document struct {
	// ContractVersion is "1".
	ContractVersion string
	// DecisionFields is what [DecisionFields] returns.
	DecisionFields []string
	// Suites have distinct names.
	Suites []Suite
}

// NewDocument returns a document of the current version that holds suites.
func NewDocument(suites ...Suite) *Document {
	return &Document{ContractVersion: ContractVersion, DecisionFields: DecisionFields(), Suites: suites}
}

// Suite is one timeline. Strategy, Key and Ops are those of a [RateLimit] suite; of a
// suite of any other primitive Body holds the whole JSON object, for those who know it.
type Suite struct {
	// Primitive says what the suite exercises, such as "rateLimit", "tokenBudget" or "lease".
	Primitive string
	// Name identifies the suite; at most 200 bytes.
	Name string
	// Strategy is the rule under test.
	Strategy Strategy
	// Key is the one key that all ops check.
	Key string
	// Ops are the checks, in order, at least one. Time may stand still or go backwards between them.
	Ops []Op
	// Body is the suite's JSON object if Primitive is not RateLimit, and nil if it is.
	Body json.RawMessage
}

// Op is one check and the decision it must get.
type Op struct {
	// Now is the time of the check in epoch milliseconds, from 0 to [throttlekit.MaxSafe].
	Now int64
	// Cost is finite, above 0 and at most [throttlekit.MaxSafe]; fractions are allowed.
	Cost float64
	// Expect is the decision.
	Expect throttlekit.Decision
}

const (
	maxName = 200

	safeRule    = "must be an integer from 0 to 9007199254740991"
	costRule    = "must be a finite number greater than 0 and at most 9007199254740991"
	retryRule   = "must be 0 if and only if the check is allowed"
	nameRule    = "must be a text of 1 to 200 bytes"
	uniqueRule  = "must be unique in the document"
	versionRule = `must be "1"`
	fieldsRule  = "must be allowed, limit, remaining, resetAt, retryAfterMs"
	opsRule     = "must hold at least one op"
)

func invalid(field string, value any, rule string) error {
	return &throttlekit.InvalidError{Field: field, Value: value, Rule: rule}
}

// validate checks every rule that types alone do not enforce.
func (d *Document) validate() error {
	if d.ContractVersion != ContractVersion {
		return invalid("contractVersion", d.ContractVersion, versionRule)
	}
	if !slices.Equal(d.DecisionFields, DecisionFields()) {
		return invalid("decisionFields", d.DecisionFields, fieldsRule)
	}
	seen := make(map[string]bool, len(d.Suites))
	for i := range d.Suites {
		s := &d.Suites[i]
		if s.Name == "" || len(s.Name) > maxName {
			return invalid(fmt.Sprintf("suites[%d].name", i), s.Name, nameRule)
		}
		if seen[s.Name] {
			return invalid(fmt.Sprintf("suites[%d].name", i), s.Name, uniqueRule)
		}
		seen[s.Name] = true
		if err := s.validate(suitePath(s.Name)); err != nil {
			return err
		}
	}
	return nil
}

// suitePath is how errors name a suite.
func suitePath(name string) string { return fmt.Sprintf("suite %q: ", name) }

func opPath(suite string, i int) string { return fmt.Sprintf("%sops[%d].", suite, i) }

func (s *Suite) validate(path string) error {
	if s.Primitive == "" {
		return invalid(path+"primitive", s.Primitive, "must not be empty")
	}
	if s.Primitive != RateLimit {
		return s.validateBody(path)
	}
	if s.Body != nil {
		return invalid(path+"body", string(s.Body), "must be empty for a rateLimit suite")
	}
	if err := s.Strategy.validate(path + "strategy."); err != nil {
		return err
	}
	if len(s.Ops) == 0 {
		return invalid(path+"ops", len(s.Ops), opsRule)
	}
	for i := range s.Ops {
		if err := s.Ops[i].validate(opPath(path, i)); err != nil {
			return err
		}
	}
	return nil
}

// validateBody makes sure that a suite which is only passed on says what its fields say.
func (s *Suite) validateBody(path string) error {
	var err error
	o := open(path, s.Body, &err)
	primitive, name := o.text("primitive"), o.text("name")
	if err == nil && (primitive != s.Primitive || name != s.Name) {
		err = invalid(path+"body", primitive+" "+name, "must have the suite's primitive and name")
	}
	return err
}

func (o *Op) validate(path string) error {
	if !safe(o.Now) {
		return invalid(path+"now", o.Now, safeRule)
	}
	if !(o.Cost > 0 && o.Cost <= throttlekit.MaxSafe) {
		return invalid(path+"cost", o.Cost, costRule)
	}
	path += "expect."
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"limit", o.Expect.Limit},
		{"remaining", o.Expect.Remaining},
		{"resetAt", o.Expect.ResetAtMillis},
		{"retryAfterMs", o.Expect.RetryAfterMillis},
	} {
		if !safe(f.value) {
			return invalid(path+f.name, f.value, safeRule)
		}
	}
	if o.Expect.Allowed != (o.Expect.RetryAfterMillis == 0) {
		return invalid(path+"retryAfterMs", o.Expect.RetryAfterMillis, retryRule)
	}
	return nil
}

// safe reports whether binary64 counts n exactly, as every reader of a document must.
func safe(n int64) bool { return n >= 0 && n <= throttlekit.MaxSafe }
