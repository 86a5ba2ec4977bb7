package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
)

// word is a flag that takes one of several words.
type word struct {
	value string
	words []string
}

// choice defines such a flag and completes it in shells. Its default is the first word, unless it has a value already.
// The letter may be empty.
func choice(cmd *cobra.Command, w *word, name, letter, usage string, words ...string) {
	w.value, w.words = cmp.Or(w.value, words[0]), words
	cmd.Flags().VarP(w, name, letter, usage)
	if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined a line above
	}
}

// String implements pflag.Value.
func (w *word) String() string { return w.value }

// Type implements pflag.Value; help shows it as the placeholder.
func (w *word) Type() string { return strings.Join(w.words, "|") }

// Set implements pflag.Value.
func (w *word) Set(text string) error {
	if !slices.Contains(w.words, text) {
		last := len(w.words) - 1
		return fmt.Errorf("must be %s or %s", strings.Join(w.words[:last], ", "), w.words[last])
	}
	w.value = text
	return nil
}

// off in place of a port leaves the door out.
const off = "off"

// port is a flag that takes a TCP port; 0 lets the system pick one.
type port struct {
	value string
	orOff bool
}

// String implements pflag.Value.
func (p *port) String() string { return p.value }

// Type implements pflag.Value.
func (p *port) Type() string {
	if p.orOff {
		return "port|off"
	}
	return "port"
}

// Set implements pflag.Value.
func (p *port) Set(text string) error {
	if p.orOff && text == off {
		p.value = off
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err == nil:
		p.value = strconv.FormatUint(n, 10)
		return nil
	case p.orOff:
		return errors.New("must be a port from 0 to 65535, or off")
	}
	return errors.New("must be a port from 0 to 65535")
}

// units is a flag that takes a cost.
type units int64

// String implements pflag.Value.
func (u *units) String() string { return strconv.FormatInt(int64(*u), 10) }

// Type implements pflag.Value.
func (u *units) Type() string { return "N" }

// Set implements pflag.Value.
func (u *units) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > throttlekit.MaxSafe {
		return errors.New("must be an integer from 1 to 9007199254740991")
	}
	*u = units(n)
	return nil
}

// span is a flag that takes a positive duration.
type span time.Duration

// String implements pflag.Value.
func (s *span) String() string { return time.Duration(*s).String() }

// Type implements pflag.Value.
func (s *span) Type() string { return "duration" }

// Set implements pflag.Value.
func (s *span) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New("must be a positive duration such as 500ms or 10s")
	}
	*s = span(d)
	return nil
}

// path is a flag that takes the name of a file. It must not be empty: an unset variable in a script would otherwise mean
// the starter set instead of a policy file, or plaintext instead of TLS.
type path string

// String implements pflag.Value.
func (p *path) String() string { return string(*p) }

// Type implements pflag.Value.
func (p *path) Type() string { return "file" }

// Set implements pflag.Value.
func (p *path) Set(text string) error {
	if text == "" {
		return errors.New("must name a file")
	}
	*p = path(text)
	return nil
}
