package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go"
)

// scope reads the fields of one mapping. Every reader reports what is wrong and goes on,
// so that one reading finds everything; ok is false for a field that is wrong or not
// there. A field that is null is not there.
type scope struct {
	out   *report
	path  string
	name  position // of the key that the mapping belongs to: the place of what is missing
	node  *node
	asked []string          // fields that somebody looked for
	wrong map[string]bool   // fields with a problem already
	inner map[string]*scope // mappings in this one that somebody reads
	// explain is the rule that a field breaks which nobody asked for but which has its
	// place elsewhere, or empty. It may be nil.
	explain func(field string) string
}

func newScope(out *report, path string, name position, n *node) *scope {
	return &scope{out: out, path: path, name: name, node: n, wrong: map[string]bool{}, inner: map[string]*scope{}}
}

// find is the entry of a field, null or not, and makes the field a known one.
func (s *scope) find(field string) *entry {
	s.asked = append(s.asked, field)
	return s.entry(field)
}

func (s *scope) entry(field string) *entry {
	for i := range s.node.entries {
		if s.node.entries[i].key == field {
			return &s.node.entries[i]
		}
	}
	return nil
}

// get is the value of a field, nil if it is not there.
func (s *scope) get(field string) *node {
	if e := s.find(field); e != nil && e.value.kind != nullNode {
		return e.value
	}
	return nil
}

// fail reports that the value of a field breaks a rule.
func (s *scope) fail(field string, n *node, rule, hint string) {
	s.wrong[field] = true
	s.out.add(n.pos, Problem{Path: join(s.path, field), Rule: rule, Value: n.describe(), Hint: hint})
}

// require reports a field that is not there.
func (s *scope) require(field, rule string) {
	if s.wrong[field] {
		return
	}
	if e := s.find(field); e != nil {
		s.fail(field, e.value, rule, "")
		return
	}
	s.wrong[field] = true
	s.out.add(s.name, Problem{Path: join(s.path, field), Rule: rule})
}

// number reads a number.
func (s *scope) number(field string) (x float64, ok bool) {
	n := s.get(field)
	if n == nil {
		return 0, false
	}
	return s.numberOf(field, n, "must be a number")
}

func (s *scope) numberOf(field string, n *node, rule string) (x float64, ok bool) {
	switch {
	case n.kind == oddNumberNode:
		s.fail(field, n, rule+" in plain decimal notation", "")
	case n.kind == stringNode && decimal.MatchString(n.text):
		s.fail(field, n, rule, "remove the quotes")
	case n.kind != numberNode:
		s.fail(field, n, rule, "")
	default:
		x, err := strconv.ParseFloat(n.text, 64)
		if err == nil {
			return x, true
		}
		s.fail(field, n, "must be a finite number", "")
	}
	return 0, false
}

// integer reads a whole number from lo to hi.
func (s *scope) integer(field string, lo, hi int64) (i int64, ok bool) {
	n := s.get(field)
	if n == nil {
		return 0, false
	}
	rule := fmt.Sprintf("must be an integer from %d to %d", lo, hi)
	x, ok := s.numberOf(field, n, rule)
	if !ok {
		return 0, false
	}
	if x != math.Trunc(x) || x < float64(lo) || x > float64(hi) {
		s.fail(field, n, rule, "")
		return 0, false
	}
	return int64(x), true
}

// boolean reads a truth value.
func (s *scope) boolean(field string) (value, ok bool) {
	n := s.get(field)
	if n == nil {
		return false, false
	}
	if n.kind != boolNode {
		s.fail(field, n, "must be true or false", "")
		return false, false
	}
	return strings.EqualFold(n.text, "true"), true
}

// block is the scope of a mapping in this one, nil if it is no mapping. Unlike a field, a
// block that is null is there.
func (s *scope) block(field string) *scope {
	e := s.find(field)
	if e == nil {
		return nil
	}
	if e.value.kind != mapNode {
		hint := ""
		if e.value.kind == nullNode {
			hint = "write {} for the defaults"
		}
		s.fail(field, e.value, "must be a mapping", hint)
		return nil
	}
	s.inner[field] = newScope(s.out, join(s.path, field), e.pos, e.value)
	return s.inner[field]
}

// word reads a string that names things: short, and of characters that can be shown.
func (s *scope) word(field string) (text string, ok bool) {
	n := s.get(field)
	switch {
	case n == nil:
		return "", false
	case n.kind == numberNode || n.kind == oddNumberNode || n.kind == boolNode:
		s.fail(field, n, "must be a string", "put it in quotes")
	case n.kind != stringNode:
		s.fail(field, n, "must be a string", "")
	case !showable(n.text):
		s.fail(field, n, wordRule, "")
	default:
		return n.text, true
	}
	return "", false
}

const (
	longestWord = 256
	wordRule    = "must be at most 256 bytes long, without control characters"
)

func showable(text string) bool {
	return len(text) <= longestWord && strings.IndexFunc(text, hidden) < 0
}

// choice reads one of several words.
func (s *scope) choice(field string, words []string) (word string, ok bool) {
	n := s.get(field)
	if n == nil {
		return "", false
	}
	hint := ""
	if n.kind == stringNode {
		for _, w := range words {
			if w == n.text {
				return w, true
			}
		}
		hint = didYouMean(n.text, words)
	}
	s.fail(field, n, "must be "+oneOf(words), hint)
	return "", false
}

// duration reads a duration in any spelling.
func (s *scope) duration(field string) (d time.Duration, ok bool) {
	n := s.get(field)
	if n == nil {
		return 0, false
	}
	if n.kind == numberNode || n.kind == oddNumberNode {
		return s.millis(field)
	}
	rule := durationRule
	if n.kind == stringNode {
		d, rule = parseDuration(n.text)
	}
	if rule != "" {
		s.fail(field, n, rule, "")
		return 0, false
	}
	return d, true
}

// millis reads a duration that is written as a number of milliseconds.
func (s *scope) millis(field string) (d time.Duration, ok bool) {
	n := s.get(field)
	if n == nil {
		return 0, false
	}
	const rule = "must be a number of milliseconds"
	if _, broken := parseDuration(n.text); n.kind == stringNode && broken == "" && !decimal.MatchString(n.text) {
		s.fail(field, n, rule, "give a duration with a unit as "+s.unitField(field))
		return 0, false
	}
	x, ok := s.numberOf(field, n, rule)
	if !ok {
		return 0, false
	}
	d, broken := fromMillis(x)
	if broken != "" {
		s.fail(field, n, broken, "")
	}
	return d, broken == ""
}

// unitField is the field for durations with a unit beside one for milliseconds.
func (s *scope) unitField(field string) string {
	if slices.Contains(s.asked, "period") {
		return "period"
	}
	return strings.TrimSuffix(field, "Ms")
}

// judge puts a strategy before the core, which owns the rules about its numbers, and
// reports what it refuses at the place in the file. Fields that the file spells in
// another way than the core are in spelled.
func (s *scope) judge(strategy throttlekit.Strategy, spelled map[string]string) (rule throttlekit.Rule, ok bool) {
	rule, err := strategy.Rule()
	if err == nil {
		return rule, len(s.wrong) == 0
	}
	var implied []*throttlekit.InvalidError
	for _, invalid := range invalids(err) {
		field := invalid.Field
		if as := spelled[field]; as != "" {
			field = as
		}
		switch e := s.entry(field); {
		case s.wrong[field]:
		case e != nil && e.value.kind != nullNode:
			s.fail(field, e.value, invalid.Rule, "")
		default:
			implied = append(implied, invalid)
		}
	}
	// A field that the file leaves out has its value from another one. It is worth a
	// line only if that one is right.
	if len(s.wrong) == 0 {
		for _, invalid := range implied {
			s.out.add(s.name, Problem{
				Path: join(s.path, invalid.Field), Rule: invalid.Rule, Value: fmt.Sprint(invalid.Value), Hint: "this is its default here",
			})
		}
		if len(implied) == 0 {
			s.out.add(s.name, Problem{Path: s.path, Rule: "must be valid: " + err.Error()})
		}
	}
	return nil, false
}

// mustBeGiven is the rule of the core and the axes about fields that have no default.
const mustBeGiven = "must be given"

// place reports what the core, or an axis, refuses about fields of this mapping, and of those in it
// as "mapping.field".
func (s *scope) place(err error, spelled map[string]string) {
	if err == nil {
		return
	}
	broken := invalids(err)
	var implied []func()
	for _, invalid := range broken {
		at, field := s.locate(cmp.Or(spelled[invalid.Field], invalid.Field))
		if e := at.entry(field); e == nil && !at.wrong[field] && invalid.Rule != mustBeGiven {
			implied = append(implied, func() { at.require(field, invalid.Rule) })
			continue
		}
		at.require(field, invalid.Rule)
	}
	for name, inner := range s.inner {
		if len(inner.wrong) > 0 {
			s.wrong[name] = true
		}
	}
	if len(s.wrong) > 0 {
		return // what the file leaves out has its value from what is wrong
	}
	for _, report := range implied {
		report()
	}
	if len(broken) == 0 {
		s.out.add(s.name, Problem{Path: s.path, Rule: "must be valid: " + err.Error()})
	}
}

// locate is the mapping that a field is in, this one or one in it, and its name there.
func (s *scope) locate(field string) (*scope, string) {
	if outer, name, nested := strings.Cut(field, "."); nested && s.inner[outer] != nil {
		return s.inner[outer], name
	}
	return s, field
}

// invalids are the broken rules in an error of the core.
func invalids(err error) []*throttlekit.InvalidError {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*throttlekit.InvalidError
		for _, e := range joined.Unwrap() {
			all = append(all, invalids(e)...)
		}
		return all
	}
	if invalid, ok := errors.AsType[*throttlekit.InvalidError](err); ok {
		return []*throttlekit.InvalidError{invalid}
	}
	return nil
}

// finish reports fields that nobody asked for.
func (s *scope) finish() {
	known := distinct(s.asked)
	for _, e := range s.node.entries {
		if e.repeat || slices.Contains(known, e.key) {
			continue
		}
		p := Problem{Path: join(s.path, e.key)}
		if s.explain != nil {
			p.Rule = s.explain(e.key)
		}
		if p.Rule == "" {
			p.Rule, p.Hint = "is not a known field", didYouMean(e.key, known)
			if p.Hint == "" {
				p.Hint = "known are " + allOf(known)
			}
		}
		s.out.add(e.pos, p)
	}
}
