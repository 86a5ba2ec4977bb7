package vectors_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	throttlekit "github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/vectors"
)

func write(tb testing.TB, doc *vectors.Document) string {
	tb.Helper()
	var b bytes.Buffer
	if err := vectors.Write(&b, doc); err != nil {
		tb.Fatal(err)
	}
	return b.String()
}

// sameNumbers compares two JSON objects of numbers by value, however the digits are written.
func sameNumbers(a, b string) bool {
	var x, y map[string]float64
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func TestWriteIsStable(t *testing.T) {
	t.Parallel()
	doc, err := vectors.Read(strings.NewReader(validDocument))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "contractVersion": "1",
  "decisionFields": ["allowed", "limit", "remaining", "resetAt", "retryAfterMs"],
  "suites": [
    {
      "primitive": "rateLimit",
      "name": "a/b",
      "strategy": {"kind": "gcra", "options": {"limit": 2, "periodMs": 10}},
      "key": "k",
      "ops": [
        {"now": 5, "cost": 1, "expect": {"allowed": true, "limit": 2, "remaining": 1, "resetAt": 10, "retryAfterMs": 0}},
        {"now": 5, "cost": 1, "expect": {"allowed": true, "limit": 2, "remaining": 1, "resetAt": 10, "retryAfterMs": 0}}
      ]
    },
    {"primitive":"lease","name":"c","limit":5,"events":[]}
  ]
}
`
	first := write(t, doc)
	if first != want {
		t.Errorf("wrote\n%s\nwant\n%s", first, want)
	}
	again, err := vectors.Read(strings.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	if second := write(t, again); second != first {
		t.Errorf("the second time\n%s", second)
	}
}

func TestWriteRoundTripsGolden(t *testing.T) {
	t.Parallel()
	doc := golden(t)
	again, err := vectors.Read(strings.NewReader(write(t, doc)))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(doc, again) {
		t.Error("reading back gives another document")
	}
}

func TestWriteNumbersAsECMAScript(t *testing.T) {
	t.Parallel()
	for want, x := range map[string]float64{
		"0": math.Copysign(0, -1), "0.1": 0.1, "333.5": 333.5, "1e+21": 1e21, "100000000000000000000": 1e20,
		"1e-7": 1e-7, "0.000001": 1e-6, "5e-324": 5e-324, "1.7976931348623157e+308": math.MaxFloat64,
		"9007199254740991": 9007199254740991, "4.440892098500626e-16": 4.4408920985006262e-16,
	} {
		doc := vectors.NewDocument(suite("s", "other", vectors.Options{"x": x}, vectors.Op{Cost: 1, Expect: yes(1, 0, 0)}))
		if text := write(t, doc); !strings.Contains(text, `"x": `+want+`}`) {
			t.Errorf("%g is written as in %s, want %s", x, text, want)
		}
	}
}

func TestWriteOrdersOptions(t *testing.T) {
	t.Parallel()
	options := vectors.Options{"zeta": 1., "alpha": "<&>\u2028\"", "burst": 3., "periodMs": 2., "limit": 1.}
	text := write(t, vectors.NewDocument(suite("s", "gcra", options, vectors.Op{Cost: 1, Expect: yes(1, 0, 0)})))
	if want := `{"limit": 1, "periodMs": 2, "burst": 3, "alpha": "<&>\u2028\"", "zeta": 1}`; !strings.Contains(text, want) {
		t.Errorf("wrote %s, want it to contain %s", text, want)
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	op := vectors.Op{Cost: 1, Expect: yes(1, 0, 0)}
	for name, doc := range map[string]*vectors.Document{
		"zero document":       {},
		"no ops":              vectors.NewDocument(suite("s", "gcra", nil)),
		"option of an int":    vectors.NewDocument(suite("s", "gcra", vectors.Options{"limit": 1}, op)),
		"option not finite":   vectors.NewDocument(suite("s", "gcra", vectors.Options{"limit": math.Inf(1)}, op)),
		"cost not a number":   vectors.NewDocument(suite("s", "gcra", nil, vectors.Op{Cost: math.NaN(), Expect: yes(1, 0, 0)})),
		"body that lies":      vectors.NewDocument(vectors.Suite{Primitive: "x", Name: "y", Body: []byte(`{"primitive":"x","name":"z"}`)}),
		"body of no JSON":     vectors.NewDocument(vectors.Suite{Primitive: "x", Name: "y", Body: []byte(`{"primitive":"x","name":"y"`)}),
		"no body":             vectors.NewDocument(vectors.Suite{Primitive: "x", Name: "y"}),
		"body of a rateLimit": vectors.NewDocument(vectors.Suite{Primitive: vectors.RateLimit, Name: "y", Body: []byte(`{}`)}),
	} {
		var b bytes.Buffer
		if err := vectors.Write(&b, doc); !errors.Is(err, throttlekit.ErrInvalid) || b.Len() > 0 {
			t.Errorf("%s: error %v, wrote %q", name, err, b.String())
		}
	}
	broken := errors.New("the disk is full")
	if err := vectors.Write(failing{broken}, vectors.NewDocument()); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
