package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parseJSON reads JSON by the rules of encoding/json, with positions.
func (r *reader) parseJSON() *node {
	// The text is judged as a whole first: that finds what comes after the document,
	// and what follows may take the grammar for granted.
	var whole json.RawMessage
	if err := json.Unmarshal([]byte(r.text), &whole); err != nil {
		r.jsonError(err)
		return nil
	}
	j := jsonReader{
		out: r.out, text: r.text,
		decoder: json.NewDecoder(strings.NewReader(r.text)),
		cursor:  cursor{text: r.text, at: position{1, 1}},
	}
	j.decoder.UseNumber()
	return j.value(0)
}

func (r *reader) jsonError(err error) {
	offset := len(r.text)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && strings.HasPrefix(err.Error(), "invalid") {
		offset = int(syntax.Offset) - 1 // it counts the bad character as read
	}
	r.out.add(r.position(offset), Problem{
		Rule: "is no valid JSON: " + err.Error(), Hint: "a file that begins with { or [ is read as JSON",
	})
}

type jsonReader struct {
	out     *report
	text    string
	decoder *json.Decoder
	cursor  cursor
	broken  bool
}

// next is the next token and where it begins. There is no token when the reader is broken.
func (j *jsonReader) next() (json.Token, position) {
	rest := j.text[j.decoder.InputOffset():]
	at := j.cursor.move(len(j.text) - len(strings.TrimLeft(rest, " \t\n,:")))
	token, err := j.decoder.Token()
	if err != nil {
		j.fail(at, "is no valid JSON: "+err.Error())
	}
	return token, at
}

func (j *jsonReader) fail(at position, rule string) {
	if !j.broken {
		j.out.add(at, Problem{Rule: rule})
	}
	j.broken = true
}

// value reads one value at a depth of nesting.
func (j *jsonReader) value(depth int) *node {
	token, at := j.next()
	n := &node{pos: at}
	switch token := token.(type) {
	case json.Delim:
		if depth == maxDepth {
			j.fail(at, tooDeep)
			return n
		}
		j.content(n, token, depth+1)
	case json.Number:
		n.kind, n.text = numberNode, token.String()
	case string:
		n.kind, n.text = stringNode, token
	case bool:
		n.kind, n.text = boolNode, strconv.FormatBool(token)
	}
	return n
}

// content reads what stands between an opening bracket and the closing one.
func (j *jsonReader) content(n *node, opening json.Delim, depth int) {
	n.kind = listNode
	if opening == '{' {
		n.kind = mapNode
	}
	for !j.broken && j.decoder.More() {
		if n.kind == listNode {
			n.items = append(n.items, j.value(depth))
			continue
		}
		key, at := j.next()
		n.entries = append(n.entries, entry{key: fmt.Sprint(key), pos: at, value: j.value(depth)})
	}
	if !j.broken {
		j.next() // the closing bracket
	}
}
