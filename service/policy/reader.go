package policy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a policy file, so that junk ends in an error and not in a long wait.
const (
	// MaxFileBytes is the size of the largest file, in bytes.
	MaxFileBytes = 1 << 20
	// MaxPolicies is the most policies in one file.
	MaxPolicies = 10_000
	// maxDepth is how deep mappings and lists may nest.
	maxDepth = 64
)

var tooDeep = fmt.Sprintf("must not nest mappings and lists more than %d deep", maxDepth)

// reader turns the text of a file into nodes.
type reader struct {
	out  *report
	text string // UTF-8 without a byte order mark, lines ending in \n
}

// read is the value that the text holds, nil if a problem has been reported instead.
func (r *reader) read(raw []byte) *node {
	if !r.accept(raw) {
		return nil
	}
	var root *node
	text := strings.TrimSpace(r.text)
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") {
		root = r.parseJSON()
	} else {
		root = r.parseYAML()
	}
	if len(r.out.problems) > 0 {
		return nil
	}
	return root
}

// accept judges the text before its grammar does.
func (r *reader) accept(raw []byte) bool {
	if len(raw) > MaxFileBytes {
		r.out.add(position{1, 1}, Problem{Rule: fmt.Sprintf("must be at most %d bytes long", MaxFileBytes)})
		return false
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	r.text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(raw))
	for i, c := range r.text {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(r.text[i:], "\ufffd"):
			r.out.add(r.position(i), Problem{Rule: "must be UTF-8 text"})
			return false
		case hidden(c) && c != '\n' && c != '\t':
			r.out.add(r.position(i), Problem{Rule: fmt.Sprintf("must not contain the control character %U", c)})
			return false
		}
	}
	return true
}

// hidden reports whether a character controls its surroundings instead of showing. The
// Unicode line and paragraph separators do: some readers begin a new line there.
func hidden(c rune) bool { return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' }

// position of a byte offset. Whoever needs many of them takes a cursor.
func (r *reader) position(offset int) position {
	c := cursor{text: r.text, at: position{1, 1}}
	return c.move(offset)
}

// cursor turns ascending byte offsets into positions in one pass over the text.
type cursor struct {
	text   string
	offset int
	at     position
}

// move goes to an offset, which must not lie behind the cursor.
func (c *cursor) move(offset int) position {
	offset = min(offset, len(c.text))
	for _, r := range c.text[c.offset:offset] {
		if r == '\n' {
			c.at = position{c.at.line + 1, 1}
		} else {
			c.at.column++
		}
	}
	c.offset = offset
	return c.at
}
