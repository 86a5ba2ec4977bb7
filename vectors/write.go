package vectors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	throttlekit "github.com/throttlekit/throttlekit-go"
)

// Write writes a document so that equal documents give equal bytes and a review can
// follow a change: one op on a line, options in the order of the contract, numbers as
// ECMAScript writes them. [Read] reads back what Write has written.
//
// The error matches [throttlekit.ErrInvalid] if the document breaks a rule of the
// format, in which case nothing has been written; other errors come from w.
func Write(w io.Writer, doc *Document) error {
	if err := doc.validate(); err != nil {
		return err
	}
	var p printer
	p.printf("{\n  \"contractVersion\": %s,\n  \"decisionFields\": [", text(doc.ContractVersion))
	for i, name := range doc.DecisionFields {
		p.printf("%s%s", comma(i, ", "), text(name))
	}
	p.printf("],\n  \"suites\": [")
	for i := range doc.Suites {
		p.printf("%s\n    ", comma(i, ","))
		if err := p.suite(&doc.Suites[i]); err != nil {
			return err
		}
	}
	p.printf("\n  ]\n}\n")
	_, err := w.Write(p.Bytes())
	return err
}

// printer collects the text of a document.
type printer struct{ bytes.Buffer }

func (p *printer) printf(format string, args ...any) {
	p.Write(fmt.Appendf(p.AvailableBuffer(), format, args...))
}

func comma(i int, separator string) string {
	if i == 0 {
		return ""
	}
	return separator
}

func (p *printer) suite(s *Suite) error {
	if s.Primitive != RateLimit {
		return json.Compact(&p.Buffer, s.Body)
	}
	p.printf("{\n      \"primitive\": %s,\n      \"name\": %s,\n", text(s.Primitive), text(s.Name))
	p.printf("      \"strategy\": {\"kind\": %s, \"options\": {", text(s.Strategy.Kind))
	for i, name := range s.Strategy.names() {
		p.printf("%s%s: %s", comma(i, ", "), text(name), scalar(s.Strategy.Options[name]))
	}
	p.printf("}},\n      \"key\": %s,\n      \"ops\": [", text(s.Key))
	for i := range s.Ops {
		p.printf("%s\n        ", comma(i, ","))
		p.op(&s.Ops[i])
	}
	p.printf("\n      ]\n    }")
	return nil
}

func (p *printer) op(o *Op) {
	p.printf(`{"now": %d, "cost": %s, "expect": `, o.Now, number(o.Cost))
	p.decision(o.Expect)
	p.printf("}")
}

func (p *printer) decision(d throttlekit.Decision) {
	p.printf(`{"allowed": %t, "limit": %d, "remaining": %d, "resetAt": %d, "retryAfterMs": %d}`,
		d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis, d.RetryAfterMillis)
}

// scalar writes an option's value, which has been validated.
func scalar(v any) string {
	if x, ok := v.(float64); ok {
		return number(x)
	}
	return text(fmt.Sprint(v))
}

// number writes binary64 as ECMAScript does. Package strconv finds the same shortest
// digits; ECMAScript only lays them out differently, as encoding/json does, and knows no
// negative zero.
func number(x float64) string {
	if x == 0 {
		return "0"
	}
	b, err := json.Marshal(x)
	if err != nil { // not finite, which validation has refused
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	return string(b)
}

// text writes a JSON text with as few escapes as JSON allows.
func text(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // a text always encodes
		return strconv.Quote(s)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
