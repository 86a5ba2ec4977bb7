package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/throttlekit/throttlekit-go"
)

// Problem is one thing that is wrong in a policy file.
type Problem struct {
	// File is the name of the file, as it was given.
	File string
	// Line and Column say where, counted from 1 in characters.
	Line, Column int
	// Path is the field, as in limiters.api.period. It is empty if the text as a whole is meant.
	Path string
	// Rule is what is broken, as in "must be a positive finite number".
	Rule string
	// Value is what stands there, as it is written, or empty.
	Value string
	// Hint says what to do, as in "did you mean `period`?", or is empty.
	Hint string
}

// String is the problem on one line:
//
//	policies.yaml:4:12: limiters.api.limit: must be a positive finite number, got 0
func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", oneLine(p.File), p.Line, p.Column)
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Rule)
	if p.Value != "" {
		b.WriteString(", got " + p.Value)
	}
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Error holds everything that is wrong in a policy file, in the order of the text. It
// matches [throttlekit.ErrInvalid].
type Error struct {
	// Problems are sorted by position; there is at least one.
	Problems []Problem
	// Omitted is how many more there are, beyond the first thousand found.
	Omitted int
}

// Error is one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	if e.Omitted > 0 {
		lines = append(lines, fmt.Sprintf("and %d more problems", e.Omitted))
	}
	return strings.Join(lines, "\n")
}

// Is makes every Error match throttlekit.ErrInvalid.
func (e *Error) Is(target error) bool { return target == throttlekit.ErrInvalid }

// maxProblems bounds what is kept for a file that is wrong all over.
const maxProblems = 1000

// report collects the problems of one file.
type report struct {
	file     string
	problems []Problem
	omitted  int
}

// add notes a problem. Its File, Line and Column are filled in here.
func (r *report) add(at position, p Problem) {
	if len(r.problems) == maxProblems {
		r.omitted++
		return
	}
	p.File, p.Line, p.Column = r.file, at.line, at.column
	r.problems = append(r.problems, p)
}

func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	sorted := slices.Clone(r.problems)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
	})
	return &Error{Problems: sorted, Omitted: r.omitted}
}

// join appends a key to a path, in brackets and quotes if it is no plain word.
func join(path, key string) string {
	plain := key != "" && strings.IndexFunc(key, func(c rune) bool {
		return c != '_' && c != '-' && !unicode.IsLetter(c) && !unicode.IsDigit(c)
	}) < 0
	switch {
	case !plain || len(key) > longestShown:
		return path + "[" + quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// longestShown is how many bytes of a text from the file a message shows.
const longestShown = 64

// quote renders text from the file so that it stays on one line and is not too long.
func quote(s string) string {
	if len(s) <= longestShown {
		return strconv.Quote(s)
	}
	return strconv.Quote(strings.ToValidUTF8(s[:longestShown], "")) + "…"
}

// oneLine leaves a file name alone unless it could break a log line or a terminal.
func oneLine(name string) string {
	if strings.IndexFunc(name, hidden) < 0 {
		return name
	}
	return strconv.Quote(name)
}
