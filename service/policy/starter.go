package policy

import _ "embed" // for the text below

//go:embed starter.yaml
var starter string

// Starter is the set of policies for a program that was given no policy file: default,
// login, api and daily. There is no error unless this package is broken.
func Starter() (*File, error) { return Parse("starter.yaml", []byte(starter)) }

// StarterText is the text of [Starter], with comments, as a file to begin with.
func StarterText() string { return starter }
