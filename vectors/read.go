package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// MaxBytes is the size of the largest document that [Read] takes: 64 MiB.
const MaxBytes = 64 << 20

// Read reads a document and refuses whatever a replay could misunderstand: unknown,
// missing, repeated and misspelt fields, fractional or unsafe integers, decisions that
// contradict themselves, trailing data, and more than [MaxBytes]. Of a suite whose
// primitive is not [RateLimit] it reads name and primitive only. It does not look into
// a strategy's options; [Strategy.Build] does.
//
// An error of the document matches [throttlekit.ErrInvalid] and names the suite, the op
// by its index from 0, the field and the rule; other errors come from r.
func Read(r io.Reader) (*Document, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("vectors: %w", err)
	}
	if len(text) > MaxBytes {
		return nil, invalid("document", "more", fmt.Sprintf("must be at most %d bytes", MaxBytes))
	}
	if !utf8.Valid(text) {
		return nil, invalid("document", "other bytes", "must be UTF-8")
	}
	doc, err := parse(text)
	if err != nil {
		return nil, err
	}
	if err := doc.validate(); err != nil {
		return nil, err
	}
	return doc, nil
}

func parse(text []byte) (*Document, error) {
	var err error
	top := open("", text, &err)
	doc := &Document{ContractVersion: top.text("contractVersion")}
	for i, raw := range top.list("decisionFields") {
		doc.DecisionFields = append(doc.DecisionFields, readText(fmt.Sprintf("decisionFields[%d]", i), raw, &err))
	}
	suites := top.list("suites")
	top.done()
	for i, raw := range suites {
		if err != nil {
			break
		}
		doc.Suites = append(doc.Suites, parseSuite(i, raw, &err))
	}
	return doc, err
}

func parseSuite(i int, raw json.RawMessage, err *error) Suite {
	o := open(fmt.Sprintf("suites[%d].", i), raw, err)
	s := Suite{Primitive: o.text("primitive"), Name: o.text("name")}
	if len(s.Name) <= maxName {
		o.path = suitePath(s.Name)
	}
	if *err != nil {
		return s
	}
	if s.Primitive != RateLimit {
		s.Body = raw
		return s
	}
	s.Strategy = parseStrategy(o.path+"strategy", o.raw("strategy"), err)
	s.Key = o.text("key")
	ops := o.list("ops")
	o.done()
	for i, raw := range ops {
		if *err != nil {
			break
		}
		s.Ops = append(s.Ops, parseOp(opPath(o.path, i), raw, err))
	}
	return s
}

func parseStrategy(path string, raw json.RawMessage, err *error) Strategy {
	o := open(path+".", raw, err)
	s := Strategy{Kind: o.text("kind")}
	options := open(path+".options.", o.raw("options"), err)
	o.done()
	if *err != nil {
		return s
	}
	s.Options = make(Options, len(options.fields))
	for name, raw := range options.fields {
		if raw[0] == '"' {
			s.Options[name] = readText(options.path+name, raw, err)
		} else {
			s.Options[name] = readNumber(options.path+name, raw, err)
		}
	}
	return s
}

func parseOp(path string, raw json.RawMessage, err *error) Op {
	o := open(path, raw, err)
	op := Op{Now: o.integer("now"), Cost: o.number("cost")}
	e := open(path+"expect.", o.raw("expect"), err)
	o.done()
	op.Expect = throttlekit.Decision{
		Allowed:          e.boolean("allowed"),
		Limit:            e.integer("limit"),
		Remaining:        e.integer("remaining"),
		ResetAtMillis:    e.integer("resetAt"),
		RetryAfterMillis: e.integer("retryAfterMs"),
	}
	e.done()
	return op
}

// object is a JSON object whose fields are taken out one by one. The first thing that
// is wrong with it goes to err, after which every method returns a zero value.
type object struct {
	path   string // what errors put before a field's name
	fields map[string]json.RawMessage
	err    *error
}

// open splits an object into its fields. Unlike encoding/json it tells names that
// differ in case apart, and refuses repeated ones.
func open(path string, text []byte, err *error) object {
	o := object{path: path, fields: make(map[string]json.RawMessage), err: err}
	if *err != nil {
		return o
	}
	if problem := o.split(text); problem != nil {
		*err = problem
	}
	return o
}

func (o *object) split(text []byte) error {
	whole := strings.TrimRight(o.path, ". :")
	if whole == "" {
		whole = "document"
	}
	wrong := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return invalid(whole, err.Error(), "must be a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil {
		return wrong(err)
	} else if start != json.Delim('{') {
		return wrong(errors.New("something else"))
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return wrong(err)
		}
		name, _ := token.(string) // the decoder has made sure that a name is a text
		if _, twice := o.fields[name]; twice {
			return invalid(o.path+name, "two", "must stand there once")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return wrong(err)
		}
		o.fields[name] = value
	}
	if _, err := d.Token(); err != nil {
		return wrong(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return wrong(errors.New("data after it"))
	}
	return nil
}

// raw takes a field that must be there.
func (o *object) raw(name string) json.RawMessage {
	if *o.err != nil {
		return nil
	}
	value, ok := o.fields[name]
	if !ok {
		*o.err = invalid(o.path+name, "nothing", "must be given")
		return nil
	}
	delete(o.fields, name)
	return value
}

// done makes sure that every field has been taken.
func (o *object) done() {
	if *o.err != nil || len(o.fields) == 0 {
		return
	}
	unknown := ""
	for name := range o.fields {
		if unknown == "" || name < unknown {
			unknown = name
		}
	}
	*o.err = invalid(strings.TrimRight(o.path, ". :")+" field", unknown, "must be a known one")
}

func (o *object) text(name string) string    { return readText(o.path+name, o.raw(name), o.err) }
func (o *object) number(name string) float64 { return readNumber(o.path+name, o.raw(name), o.err) }

func (o *object) integer(name string) int64 {
	x := o.number(name)
	if *o.err == nil && !(x >= 0 && x <= throttlekit.MaxSafe && x == float64(int64(x))) {
		*o.err = invalid(o.path+name, x, safeRule)
	}
	if *o.err != nil {
		return 0
	}
	return int64(x)
}

func (o *object) boolean(name string) bool {
	raw := o.raw(name)
	if *o.err != nil {
		return false
	}
	if text := string(raw); text != "true" && text != "false" {
		*o.err = invalid(o.path+name, text, "must be true or false")
	}
	return string(raw) == "true"
}

func (o *object) list(name string) []json.RawMessage {
	raw := o.raw(name)
	if *o.err != nil {
		return nil
	}
	if raw[0] != '[' {
		*o.err = invalid(o.path+name, string(raw), "must be a list")
		return nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		*o.err = invalid(o.path+name, err.Error(), "must be a list")
	}
	return items
}

func readText(path string, raw json.RawMessage, err *error) (text string) {
	if *err != nil {
		return ""
	}
	if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		*err = invalid(path, string(raw), "must be a text")
	}
	return text
}

func readNumber(path string, raw json.RawMessage, err *error) (x float64) {
	if *err != nil {
		return 0
	}
	if !strings.ContainsRune("-0123456789", rune(raw[0])) || json.Unmarshal(raw, &x) != nil {
		*err = invalid(path, string(raw), "must be a finite number")
	}
	return x
}
