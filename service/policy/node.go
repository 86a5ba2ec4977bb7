package policy

import (
	"cmp"
	"fmt"
)

// position is a place in the text: line and column in characters, from 1.
type position struct{ line, column int }

func (p position) String() string { return fmt.Sprintf("%d:%d", p.line, p.column) }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column))
}

// node is a value of the file. YAML and JSON make the same nodes, so that everything
// after this file is written once.
type node struct {
	kind    nodeKind
	pos     position
	text    string // of a scalar: a number or boolean as written, the content of a string
	entries []entry
	items   []*node
}

type nodeKind int

const (
	nullNode nodeKind = iota
	boolNode
	// numberNode is a number in plain decimal notation.
	numberNode
	// oddNumberNode is what YAML takes for a number and this format does not, such as 0x10 or .inf.
	oddNumberNode
	stringNode
	mapNode
	listNode
)

// entry is one key of a mapping with its value.
type entry struct {
	key    string
	pos    position // of the key
	value  *node
	repeat bool // the key stands in the mapping already
}

// describe renders a value for a message.
func (n *node) describe() string {
	switch n.kind {
	case nullNode:
		return "null"
	case stringNode:
		return quote(n.text)
	case mapNode:
		return "a mapping"
	case listNode:
		return "a list"
	default:
		if len(n.text) > longestShown {
			return n.text[:longestShown] + "…"
		}
		return n.text
	}
}

func (n *node) scalar() bool { return n.kind != mapNode && n.kind != listNode }

// markRepeats reports keys that stand twice in one mapping. YAML readers differ in
// which one they believe, so neither is.
func (n *node) markRepeats(out *report, path string) {
	first := make(map[string]position, len(n.entries))
	for i := range n.entries {
		e := &n.entries[i]
		at := join(path, e.key)
		if before, ok := first[e.key]; ok {
			e.repeat = true
			out.add(e.pos, Problem{Path: at, Rule: "is given twice, first at " + before.String()})
		} else {
			first[e.key] = e.pos
		}
		e.value.markRepeats(out, at)
	}
	for i, item := range n.items {
		item.markRepeats(out, fmt.Sprintf("%s[%d]", path, i))
	}
}
