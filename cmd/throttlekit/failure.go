package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/throttlekit/throttlekit-go"
)

// The exit codes, explained in the package comment.
const (
	codeFailed = 1
	codeWrong  = 2
	codeDenied = 3
)

// failure is an error that knows the exit code. Any other error means codeFailed.
type failure struct {
	code int
	err  error // nil if everything has been said
}

// Error implements error.
func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit code %d", f.code)
	}
	return f.err.Error()
}

// Unwrap makes errors.Is see the cause.
func (f *failure) Unwrap() error { return f.err }

// errDenied ends a command whose answer has been printed.
var errDenied = &failure{code: codeDenied}

// wrong is a mistake of the user: it will not go away by trying again.
func wrong(format string, args ...any) error {
	return &failure{code: codeWrong, err: fmt.Errorf(format, args...)}
}

// reword makes an error of a library, which may join several, a mistake of the user in terms of the command line: flags
// are what the fields of an [throttlekit.InvalidError] are called here, and words are pairs of words in its rule, there
// and here. A rule that several fields with one flag break is told once.
func reword(err error, flags map[string]string, words ...string) error {
	here := strings.NewReplacer(words...)
	var lines, told []string
	for _, e := range parts(err) {
		invalid, ok := errors.AsType[*throttlekit.InvalidError](e)
		if !ok {
			lines = append(lines, e.Error())
			continue
		}
		flag := cmp.Or(flags[invalid.Field], invalid.Field)
		line := flag + " " + here.Replace(invalid.Rule)
		if slices.Contains(told, line) {
			continue
		}
		told = append(told, line)
		if value, _ := invalid.Value.(string); value != "" && here.Replace(value) != flag {
			line += fmt.Sprintf(", got %q", value)
		}
		lines = append(lines, line)
	}
	return wrong("%s", strings.Join(lines, "\n"))
}

// parts are the errors that one joins.
func parts(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, parts(e)...)
	}
	return all
}

// report prints what went wrong, each line of it with the name of the program and without passwords, and returns the exit
// code: of several the highest.
func report(stderr io.Writer, err error) (code int) {
	if err == nil {
		return 0
	}
	for _, e := range parts(err) {
		f, ok := errors.AsType[*failure](e)
		if !ok {
			f = &failure{code: codeFailed, err: e}
		}
		code = max(code, f.code)
		if f.err == nil {
			continue
		}
		for line := range strings.Lines(e.Error()) {
			sayf(stderr, "throttlekit: %s\n", discreet(visible(message(strings.TrimSuffix(line, "\n")))))
		}
	}
	return code
}

// sayf prints. Whether somebody reads it does not change what the command has done, and so not its exit code.
func sayf(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// message is the text of an error without the name of the package that it comes from, which tells a user nothing.
func message(text string) string {
	for _, name := range []string{"client", "server", "service", "vectors", "throttlekit"} {
		text = strings.TrimPrefix(text, name+": ")
	}
	return text
}

// visible escapes what a terminal would act on instead of showing it.
func visible(text string) string {
	if isVisible(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if isVisible(text[:size]) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.Quote(text[:size]), `"`))
		}
		text = text[size:]
	}
	return b.String()
}

func isVisible(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) < 0
}

// shown is a name or a key as output shows it: as it is, or in quotes if it has anything to escape.
func shown(name string) string {
	if name != "" && isVisible(name) {
		return name
	}
	return strconv.Quote(name)
}
