package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go"
)

func TestVisible(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                      "",
		"plain \"text\" é ß \\": "plain \"text\" é ß \\",
		"\a\x1b[31m\tred":       `\a\x1b[31m\tred`,
		"\xff\"\r":              `\xff"\r`,
		"\u202egnp.exe":         `\u202egnp.exe`,
		"\u0085\u200b":          `\u0085\u200b`,
	} {
		if got := visible(text); got != want {
			t.Errorf("visible(%q): got %q, want %q", text, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	broken := errors.New("client: it\nserver: broke\a")
	for _, test := range []struct {
		err  error
		code int
		text string
	}{
		{nil, 0, ""},
		{errDenied, codeDenied, ""},
		{broken, codeFailed, "throttlekit: it\nthrottlekit: broke\\a\n"},
		{fmt.Errorf("in a call: %w", wrong("no %s", "such flag")), codeWrong, "throttlekit: in a call: no such flag\n"},
		{errors.Join(broken, wrong("this"), nil, wrong("that")), codeWrong, "throttlekit: it\nthrottlekit: broke\\a\nthrottlekit: this\nthrottlekit: that\n"},
	} {
		var out strings.Builder
		if code := report(&out, test.err); code != test.code || out.String() != test.text {
			t.Errorf("%v: got %d %q, want %d %q", test.err, code, out.String(), test.code, test.text)
		}
	}
}

func TestReword(t *testing.T) {
	t.Parallel()
	invalid := func(field string, value any, rule string) error {
		return &throttlekit.InvalidError{Field: field, Value: value, Rule: rule}
	}
	err := reword(
		errors.Join(
			invalid("A", "x:1", "must not be B.C"), invalid("A2", "x:2", "must not be B.C"),
			errors.Join(invalid("B.C", "", "must be given"), errors.New("server: no file")), invalid("D", 7, "must be 8"),
		),
		map[string]string{"A": "--a", "A2": "--a", "B.C": "--b-c"}, "B.C", "--b-c",
	)
	const want = "--a must not be --b-c, got \"x:1\"\n--b-c must be given\nserver: no file\nD must be 8"
	if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
}
