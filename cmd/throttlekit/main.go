// Command throttlekit runs a ThrottleKit server, asks one, and checks what they are fed with.
//
// Exit codes are the same for every command:
//
//	0  it is done; a check was allowed
//	1  something failed, such as a server that does not answer; trying again may help
//	2  what was asked for is wrong: flags, arguments, policy files, names; trying again will not help
//	3  the request was denied
//
// Results go to standard output; errors and logs go to standard error. Characters that could play tricks on a terminal
// are escaped in both.
package main

import (
	"context"
	"io"
	"os"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program but for ending the process. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot() //nolint:contextcheck // commands get the context from cobra
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}
