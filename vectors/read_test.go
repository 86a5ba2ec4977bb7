package vectors_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

const validOp = `{"now": 5, "cost": 1, "expect": {"allowed": true, "limit": 2, "remaining": 1, "resetAt": 10, "retryAfterMs": 0}}`

const validSuite = `{"primitive": "rateLimit", "name": "a/b", "strategy": {"kind": "gcra", "options": {"limit": 2, "periodMs": 10}},
	"key": "k", "ops": [` + validOp + `, ` + validOp + `]}`

const validDocument = `{"contractVersion": "1", "decisionFields": ["allowed", "limit", "remaining", "resetAt", "retryAfterMs"],
	"suites": [` + validSuite + `, {"primitive": "lease", "name": "c", "limit": 5, "events": []}]}`

func TestReadValid(t *testing.T) {
	t.Parallel()
	doc, err := vectors.Read(strings.NewReader(validDocument))
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Suites) != 2 || len(doc.Suites[0].Ops) != 2 || doc.Suites[0].Strategy.Options["periodMs"] != 10. {
		t.Errorf("read %+v", doc)
	}
	want := vectors.Op{Now: 5, Cost: 1, Expect: throttlekit.Decision{Allowed: true, Limit: 2, Remaining: 1, ResetAtMillis: 10}}
	if got := doc.Suites[0].Ops[1]; got != want {
		t.Errorf("op %+v, want %+v", got, want)
	}
	if s := doc.Suites[1]; s.Name != "c" || s.Primitive != "lease" || !bytes.Contains(s.Body, []byte(`"limit": 5`)) {
		t.Errorf("lease suite %+v", s)
	}
}

// TestReadRefuses breaks the valid document in one place each.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 201)
	for _, c := range []struct{ name, old, broken, message string }{
		{"empty", validDocument, "", "document must be a JSON object"},
		{"a list", validDocument, "[]", "document must be a JSON object"},
		{"cut off", `"events": []}]}`, `"events": []}`, "document must be a JSON object"},
		{"trailing data", `[]}]}`, `[]}]} {}`, "document must be a JSON object, got \"data after it\""},
		{"no version", `"contractVersion": "1",`, ``, "contractVersion must be given"},
		{"version as a number", `"contractVersion": "1"`, `"contractVersion": 1`, "contractVersion must be a text"},
		{"other version", `"contractVersion": "1"`, `"contractVersion": "2"`, `contractVersion must be "1", got "2"`},
		{"name in another case", `"contractVersion"`, `"ContractVersion"`, "contractVersion must be given"},
		{"repeated name", `"contractVersion": "1",`, `"contractVersion": "1", "contractVersion": "1",`, "contractVersion must stand there once"},
		{"unknown top field", `"contractVersion": "1",`, `"contractVersion": "1", "extra": 0,`, `field must be a known one, got "extra"`},
		{"decision fields in another order", `"allowed", "limit"`, `"limit", "allowed"`, "decisionFields must be"},
		{"decision fields of numbers", `"allowed", "limit"`, `1, "limit"`, "decisionFields[0] must be a text"},
		{"suites of null", `[` + validSuite, `null, "x": [` + validSuite, "suites must be a list"},
		{"suite of a number", validSuite, "5", "suites[0] must be a JSON object"},
		{"suite without primitive", `"primitive": "rateLimit", `, ``, `suites[0].primitive must be given`},
		{"empty primitive", `"primitive": "lease"`, `"primitive": ""`, `suite "c": primitive must not be empty`},
		{"suite without name", `"name": "a/b", `, ``, `suites[0].name must be given`},
		{"empty name", `"name": "a/b"`, `"name": ""`, `suites[0].name must be a text of 1 to 200 bytes`},
		{"long name", `"name": "a/b"`, `"name": "` + long + `"`, `suites[0].name must be a text of 1 to 200 bytes`},
		{"same name twice", `"name": "c"`, `"name": "a/b"`, `suites[1].name must be unique in the document`},
		{"unknown suite field", `"key": "k"`, `"key": "k", "keys": []`, `suite "a/b" field must be a known one, got "keys"`},
		{"no key", `"key": "k",`, ``, `suite "a/b": key must be given`},
		{"no options", `, "options": {"limit": 2, "periodMs": 10}`, ``, `suite "a/b": strategy.options must be given`},
		{"empty kind", `"kind": "gcra"`, `"kind": ""`, `suite "a/b": strategy.kind must not be empty`},
		{"option of null", `"periodMs": 10`, `"periodMs": null`, `suite "a/b": strategy.options.periodMs must be a finite number`},
		{"option of a list", `"periodMs": 10`, `"periodMs": [10]`, `suite "a/b": strategy.options.periodMs must be a finite number`},
		{"option beyond binary64", `"periodMs": 10`, `"periodMs": 1e999`, `suite "a/b": strategy.options.periodMs must be a finite number`},
		{"no ops", `[` + validOp + `, ` + validOp + `]`, `[]`, `suite "a/b": ops must hold at least one op`},
		{"op of null", `, ` + validOp, `, null`, `suite "a/b": ops[1] must be a JSON object`},
		{"fractional time", `"now": 5`, `"now": 5.5`, `suite "a/b": ops[0].now must be an integer from 0 to`},
		{"negative time", `"now": 5`, `"now": -5`, `suite "a/b": ops[0].now must be an integer from 0 to`},
		{"time beyond safe", `"now": 5`, `"now": 9007199254740992`, `suite "a/b": ops[0].now must be an integer from 0 to`},
		{"time as text", `"now": 5`, `"now": "5"`, `suite "a/b": ops[0].now must be a finite number`},
		{"cost of zero", `"cost": 1`, `"cost": 0`, `suite "a/b": ops[0].cost must be a finite number greater than 0`},
		{"negative cost", `"cost": 1`, `"cost": -1`, `suite "a/b": ops[0].cost must be a finite number greater than 0`},
		{"cost beyond safe", `"cost": 1`, `"cost": 1e16`, `suite "a/b": ops[0].cost must be a finite number greater than 0`},
		{"no cost", `"cost": 1, `, ``, `suite "a/b": ops[0].cost must be given`},
		{"allowed as a number", `"allowed": true`, `"allowed": 1`, `suite "a/b": ops[0].expect.allowed must be true or false`},
		{"negative remaining", `"remaining": 1`, `"remaining": -1`, `suite "a/b": ops[0].expect.remaining must be an integer`},
		{"fractional limit", `"limit": 2, "remaining"`, `"limit": 2.5, "remaining"`, `suite "a/b": ops[0].expect.limit must be an integer`},
		{"allowed with a wait", `"retryAfterMs": 0`, `"retryAfterMs": 3`, `suite "a/b": ops[0].expect.retryAfterMs must be 0 if and only if`},
		{"denied without a wait", `"allowed": true`, `"allowed": false`, `suite "a/b": ops[0].expect.retryAfterMs must be 0 if and only if`},
		{"unknown field of a decision", `"resetAt": 10`, `"resetAt": 10, "axis": 1`, `suite "a/b": ops[0].expect field must be a known one, got "axis"`},
		{"not UTF-8", `"key": "k"`, "\"key\": \"\xff\"", "document must be UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			broken := strings.Replace(validDocument, c.old, c.broken, 1)
			if broken == validDocument {
				t.Fatal("nothing was broken")
			}
			_, err := vectors.Read(strings.NewReader(broken))
			if err == nil || !errors.Is(err, throttlekit.ErrInvalid) || !strings.Contains(err.Error(), c.message) {
				t.Errorf("error %v, want one with %q", err, c.message)
			}
		})
	}
}

// endless is a document that does not stop.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestReadIsBounded(t *testing.T) {
	t.Parallel()
	_, err := vectors.Read(endless{})
	if err == nil || !strings.Contains(err.Error(), "at most 67108864 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestReadPassesErrorsOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	_, err := vectors.Read(io.MultiReader(strings.NewReader(`{"suites"`), failing{broken}))
	if !errors.Is(err, broken) || errors.Is(err, throttlekit.ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

// failing fails whatever is asked of it.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }
