package policy

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

// parseYAML reads one document of YAML.
func (r *reader) parseYAML() (root *node) {
	// A panic in the library is its fault. A file must not turn it into one of the
	// server, which may be reading a new file while it serves.
	defer func() {
		if p := recover(); p != nil {
			root = nil
			r.out.add(position{1, 1}, Problem{Rule: "is no YAML that can be read: " + fmt.Sprint(p)})
		}
	}()
	if at, ok := directive(r.text); ok {
		r.out.add(at, Problem{Rule: "must not have directives (%)"})
		return nil
	}
	limits := &yamlLimits{}
	loader, err := yaml.NewLoader(strings.NewReader(r.text), yaml.WithV4Defaults(),
		yaml.WithUniqueKeys(false), // markRepeats reports them, all of them and with both places
		yaml.WithPlugin(limits))
	if err != nil {
		r.yamlError(err, limits)
		return nil
	}
	var document, another yaml.Node
	switch err := loader.Load(&document); {
	case errors.Is(err, io.EOF):
		return &node{kind: nullNode, pos: position{1, 1}}
	case err != nil:
		r.yamlError(err, limits)
		return nil
	}
	switch err := loader.Load(&another); {
	case errors.Is(err, io.EOF):
		return r.convert(&document, 0)
	case err != nil:
		r.yamlError(err, limits)
	default:
		r.out.add(placeOf(another.Line, another.Column), Problem{Rule: "must hold one document only"})
	}
	return nil
}

// directive finds a directive, which stands before everything but comments.
func directive(text string) (at position, ok bool) {
	line := 0
	for text := range strings.Lines(text) {
		line++
		text = strings.TrimSpace(text)
		if text != "" && !strings.HasPrefix(text, "#") {
			return position{line, 1}, strings.HasPrefix(text, "%")
		}
	}
	return position{}, false
}

// yamlLimits stops the library before its recursion gets deep.
type yamlLimits struct{ exceeded bool }

// CheckDepth implements [yaml.LoaderLimitsPlugin].
func (l *yamlLimits) CheckDepth(depth int, _ *yaml.DepthContext) error {
	if depth > maxDepth {
		l.exceeded = true
		return errors.New(tooDeep)
	}
	return nil
}

// CheckAlias implements [yaml.LoaderLimitsPlugin]. Aliases are refused, and so never expanded.
func (l *yamlLimits) CheckAlias(_, _ int) error { return nil }

func (r *reader) yamlError(err error, limits *yamlLimits) {
	at, p := position{1, 1}, Problem{Rule: "is no valid YAML: " + err.Error()}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		at = placeOf(load.Mark.Line, load.Mark.Column)
		p.Rule = "is no valid YAML: " + load.Message
		if load.ContextMsg != "" {
			p.Rule += " " + load.ContextMsg
		}
	}
	lines := strings.SplitN(r.text, "\n", at.line+1)
	switch {
	case limits.exceeded:
		p.Rule = tooDeep
	case load != nil && load.ContextMsg == "while scanning a simple key":
		at = placeOf(load.ContextMark.Line, load.ContextMark.Column)
		p.Hint = "a key is followed by a colon and a space"
	case at.line <= len(lines) && strings.HasPrefix(strings.TrimLeft(lines[at.line-1], " "), "\t"):
		p.Hint = "indent by spaces, not by tabs"
	}
	r.out.add(at, p)
}

func placeOf(line, column int) position { return position{max(1, line), max(1, column)} }

// decimal is a number as JSON writes it.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// convert makes a node of the library's, and reports what a policy file does without.
func (r *reader) convert(y *yaml.Node, depth int) *node {
	n := &node{pos: placeOf(y.Line, y.Column)}
	switch {
	case y.Anchor != "":
		r.out.add(n.pos, Problem{Rule: "must not have anchors (&): write the value where it is used"})
	case y.Style&yaml.TaggedStyle != 0 || y.Tag == "!":
		r.out.add(n.pos, Problem{Rule: "must not have tags (!)"})
	}
	switch y.Kind {
	case yaml.DocumentNode:
		return r.convert(y.Content[0], depth)
	case yaml.MappingNode, yaml.SequenceNode:
		if depth == maxDepth {
			r.out.add(n.pos, Problem{Rule: tooDeep})
			return n
		}
		r.convertContent(n, y, depth+1)
	case yaml.AliasNode:
		r.out.add(n.pos, Problem{Rule: "must not have aliases (*): write the value where it is used"})
	default:
		n.text = y.Value
		n.kind = scalarKind(y)
	}
	return n
}

func (r *reader) convertContent(n *node, y *yaml.Node, depth int) {
	if y.Kind == yaml.SequenceNode {
		n.kind = listNode
		for _, item := range y.Content {
			n.items = append(n.items, r.convert(item, depth))
		}
		return
	}
	n.kind = mapNode
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := r.convert(y.Content[i], depth)
		switch {
		case !key.scalar():
			r.out.add(key.pos, Problem{Rule: "must not have lists or mappings as keys"})
		case y.Content[i].Tag == "!!merge":
			r.out.add(key.pos, Problem{Rule: "must not have merge keys (<<): write the fields where they are used"})
		}
		n.entries = append(n.entries, entry{key: key.text, pos: key.pos, value: r.convert(y.Content[i+1], depth)})
	}
}

func scalarKind(y *yaml.Node) nodeKind {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	switch {
	case y.Style&quoted != 0:
		return stringNode
	case decimal.MatchString(y.Value):
		return numberNode
	}
	switch y.Tag {
	case "!!int", "!!float":
		return oddNumberNode
	case "!!null":
		return nullNode
	case "!!bool":
		return boolNode
	default:
		return stringNode
	}
}
