package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/service"
	"github.com/throttlekit/throttlekit-go/service/policy"
)

// stdin in place of a file name means standard input.
const stdin = "-"

// loadPolicies reads a policy file, or prints everything that is wrong with it and returns one error for the lot.
func loadPolicies(cmd *cobra.Command, path string) (*policy.File, error) {
	file, err := openPolicies(cmd, path)
	problems, found := errors.AsType[*policy.Error](err)
	switch {
	case found:
		sayf(cmd.ErrOrStderr(), "%v\n", problems)
		return nil, wrong("%s in %s", count(len(problems.Problems)+problems.Omitted, "problem"), shown(problems.Problems[0].File))
	case err != nil:
		return nil, wrong("%w", err)
	}
	return file, nil
}

func openPolicies(cmd *cobra.Command, path string) (*policy.File, error) {
	if path != stdin {
		return policy.Load(path)
	}
	text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), policy.MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return policy.Parse("<stdin>", text)
}

// printPolicies prints a table, a line for each policy.
func printPolicies(w io.Writer, policies []service.Info) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	sayf(table, "  NAME\tKIND\tSTRATEGY\tLIMIT\n")
	for _, p := range policies {
		sayf(table, "  %s\t%s\t%s\t%d\n", shown(p.Name), p.Kind, p.Strategy, p.Limit)
	}
	return table.Flush()
}

// count is "1 problem" or "2 problems", and likewise for policies.
func count(n int, one string) string {
	many := one + "s"
	if one == "policy" {
		many = "policies"
	}
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}
