package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/throttlekit/throttlekit-go/service/policy"
)

// TestParseText holds what a text as a whole gets, before any field is looked at.
func TestParseText(t *testing.T) {
	t.Parallel()
	const ok = "limiters: {}"
	const asJSON = "; a file that begins with { or [ is read as JSON"
	for _, tt := range []struct{ name, text, want string }{
		{"no policies", ok, ""},
		{"byte order mark", "\ufeff" + ok, ""},
		{"windows lines", "version: 1\r\nlimiters:\r\n  {}\r\n", ""},
		{"one document", "# c\n---\nlimiters: {}\n...\n", ""},
		{"JSON", ` { "limiters" : { } } `, ""},
		{"JSON in YAML", `"limiters": {"a":{"strategy":"gcra","limit":1,"period":"1s"}}`, ""},
		{"empty", "", "1:1: missing limiters map"},
		{"comment", "# c\n", "1:1: missing limiters map"},
		{"no limiters", "version: 1", "1:1: missing limiters map"},
		{"no limiters in JSON", "{}", "1:1: missing limiters map"},
		{"null limiters", "limiters:\n", "1:10: limiters: missing limiters map, got null"},
		{"list of limiters", "limiters: []", "1:11: limiters: must be a mapping of names to policies, got a list"},
		{"scalar", "a", `1:1: must be a mapping with the field limiters, got "a"`},
		{"JSON list", "[1]", "1:1: must be a mapping with the field limiters, got a list"},
		{"not UTF-8", ok + "\nx: \xff", "2:4: must be UTF-8 text"},
		{"replacement character", "limiters: {}\n# \ufffd", ""},
		{"NUL", "a: \x00", "1:4: must not contain the control character U+0000"},
		{"escape sequence", "é: \x1b[31m", "1:4: must not contain the control character U+001B"},
		{"hidden line break", "limiters: {} # \u2028version: 3", "1:16: must not contain the control character U+2028"},
		{"two documents", ok + "\n---\n" + ok, "2:1: must hold one document only"},
		{"document after the end", ok + "\n...\n" + ok, "3:1: must hold one document only"},
		{"directive", "# c\n%YAML 1.2\n---\n" + ok, "2:1: must not have directives (%)"},
		{"anchor", "limiters: &x {}", "1:11: must not have anchors (&): write the value where it is used"},
		{"anchor on a key", "&x limiters: {}", "1:1: must not have anchors (&): write the value where it is used"},
		{
			"alias", "a: &x {}\nb: *x", "1:4: must not have anchors (&): write the value where it is used\n" +
				"p:2:4: must not have aliases (*): write the value where it is used",
		},
		{"unknown alias", "b: *x", "1:4: is no valid YAML: unknown anchor 'x' referenced"},
		{"merge key", "<<: {limiters: {}}", "1:1: must not have merge keys (<<): write the fields where they are used"},
		{"tag", "limiters: !!map {}", "1:11: must not have tags (!)"},
		{"tag that says nothing", "limiters: ! {}", "1:11: must not have tags (!)"},
		{"list as key", "limiters: {[a]: b}", "1:12: must not have lists or mappings as keys"},
		{"complex key", "? {a: b}\n: c", "1:3: must not have lists or mappings as keys"},
		{"nested on a line", "a: b: c", "1:5: is no valid YAML: mapping values are not allowed in this context"},
		{
			"tab", "limiters:\n\ta: 1",
			"2:1: is no valid YAML: found character that cannot start any token while scanning for the next token; indent by spaces, not by tabs",
		},
		{
			"no space", "limiters:\n  a:\n    strategy: gcra\n    limit:5\n    period: 1m",
			"4:5: is no valid YAML: could not find expected ':' while scanning a simple key; a key is followed by a colon and a space",
		},
		{"indentation", "a:\n    b: 1\n  c: 1\n", "3:3: is no valid YAML: did not find expected key while parsing a block mapping"},
		{"open quote", "a: \"x", "1:6: is no valid YAML: found unexpected end of stream while scanning a quoted scalar"},
		{"open flow", "limiters: {a: [", "2:1: is no valid YAML: did not find expected node content while parsing a flow node"},
		{"key twice", "limiters: {}\nlimiters: {}", "2:1: limiters: is given twice, first at 1:1"},
		{"key twice deep inside", "limiters: {}\nversion: [{a: 1, b: 2, a: 3}]", "2:10: version: must be a number or a string, got a list\n" +
			"p:2:24: version[0].a: is given twice, first at 2:12"},
		{"key twice by an escape", `{"limiters": {}, "limiter\u0073": {}}`, "1:18: limiters: is given twice, first at 1:2"},
		{"trailing comma", `{"limiters": {},}`, "1:17: is no valid JSON: invalid character '}' looking for beginning of object key string" + asJSON},
		{"YAML with brackets", "{limiters: {}}", "1:2: is no valid JSON: invalid character 'l' looking for beginning of object key string" + asJSON},
		{"leading zero", "{\n  \"a\": 01}", "2:9: is no valid JSON: invalid character '1' after object key:value pair" + asJSON},
		{"bad escape", `{"a": "\x"}`, "1:9: is no valid JSON: invalid character 'x' in string escape code" + asJSON},
		{"tab in a string", "{\"a\": \"\t\"}", `1:8: is no valid JSON: invalid character '\t' in string literal` + asJSON},
		{"text after the end", "{} x", "1:4: is no valid JSON: invalid character 'x' after top-level value" + asJSON},
		{"two JSON documents", "{}\n{}", "2:1: is no valid JSON: invalid character '{' after top-level value" + asJSON},
		{"open JSON", "{\"é\":1", "1:7: is no valid JSON: unexpected end of JSON input" + asJSON},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := policy.Parse("p", []byte(tt.text))
			got := ""
			if err != nil {
				got = strings.TrimPrefix(err.Error(), "p:")
			}
			if !strings.HasPrefix(got, tt.want) || (tt.want == "" && got != "") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestParseDepth(t *testing.T) {
	t.Parallel()
	nested := func(open, value, closing string, n int) string {
		return strings.Repeat(open, n) + value + strings.Repeat(closing, n)
	}
	block := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}
	const deep = "must not nest mappings and lists more than 64 deep"
	for _, tt := range []struct {
		name, text string
		tooDeep    bool
	}{
		{"JSON", nested(`{"a":`, "1", "}", 64), false},
		{"JSON", nested(`{"a":`, "1", "}", 65), true},
		{"JSON lists", nested("[", "", "]", 65), true},
		{"flow", "a: " + nested("{a: ", "1", "}", 63), false},
		{"flow", "a: " + nested("{a: ", "1", "}", 64), true},
		{"flow lists", "a: " + nested("[", "", "]", 5000), true},
		{"block", block(64), false},
		{"block", block(66), true},
		{"dashes", strings.Repeat("- ", 66), true},
		{"open flow", "a: " + strings.Repeat("{a: [", 5000), true},
	} {
		t.Run(fmt.Sprintf("%s %v", tt.name, tt.tooDeep), func(t *testing.T) {
			t.Parallel()
			_, err := policy.Parse("p", []byte(tt.text))
			if err == nil || strings.Contains(err.Error(), deep) != tt.tooDeep {
				t.Errorf("got %.200v, want too deep: %v", err, tt.tooDeep)
			}
		})
	}
}

// TestParseJunk feeds texts that have brought YAML readers to their knees. Each must
// end in an error; a reader whose time grows with the square would not end in time.
func TestParseJunk(t *testing.T) {
	t.Parallel()
	const n = 1 << 14
	for _, unit := range []string{
		"a", "a\n", "#\n", "\n", " ", "\t", "a: 1\n", "a:\n", ":", ": ", "-", "- ", "- a\n", "? ", "[", "{", "{[", "{a: ", ",", "\"", "'",
		"! ", "!", "&a ", "*a ", "&a a: *a\n", "%", "---\n", "...\n", "<<: ", "a: b\r\n", "\r", "\x00", "\xff", "|\n", "@", "a: b: ",
		"\"a\": 'b'\n", "a: 1 # x\n", "`", "a: |\n b\n", "[[],", "{\"a\":", "x\n  ",
	} {
		t.Run(fmt.Sprintf("%q", unit), func(t *testing.T) {
			t.Parallel()
			junk := strings.Repeat(unit, n/len(unit))
			for _, text := range []string{junk, "limiters: " + junk, "limiters:\n  " + junk} {
				if _, err := policy.Parse("p", []byte(text)); err == nil {
					t.Errorf("%.20q… is no policy file", text)
				}
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	const want = "p:1:1: must be at most 1048576 bytes long"
	if _, err := policy.Parse("p", make([]byte, 10<<20)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var b strings.Builder
	b.WriteString("limiters:\n")
	for i := range policy.MaxPolicies {
		fmt.Fprintf(&b, "  p%d: {strategy: gcra, limit: 5, period: 1h, burst: 5}\n", i)
	}
	f, err := policy.Parse("p", []byte(b.String()))
	if err != nil || len(f.Policies()) != policy.MaxPolicies {
		t.Fatalf("got %v", err)
	}
	b.WriteString("  more: {}\n")
	const many = "p:10002:3: limiters: must have at most 10000 policies"
	if _, err = policy.Parse("p", []byte(b.String())); err == nil || err.Error() != many {
		t.Errorf("got %v, want %s", err, many)
	}
}
