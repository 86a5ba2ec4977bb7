package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newPolicyCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE...",
		Short: "Check policy files and list what they define",
		Long: `Check reads policy files, YAML or JSON, as "throttlekit serve --config" would. It lists the policies of a file that
is right, and every problem of one that is not: file, line, column, field and rule. "-" is standard input.

Exit codes: 0 all files are right, 2 at least one is not.`,
		Example: "  throttlekit policy check policies.yaml\n  generate-policies | throttlekit policy check -",
		Args:    takes(1, -1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			errs := make([]error, len(paths))
			for i, path := range paths {
				errs[i] = checkPolicies(cmd, path)
			}
			return errors.Join(errs...)
		},
	}
}

func checkPolicies(cmd *cobra.Command, path string) error {
	file, err := loadPolicies(cmd, path)
	if err != nil {
		return err
	}
	for _, w := range file.Warnings() {
		sayf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	policies := file.Policies()
	sayf(cmd.OutOrStdout(), "ok: %s in %s\n", count(len(policies), "policy"), shown(file.Name()))
	if len(policies) == 0 {
		return nil
	}
	return printPolicies(cmd.OutOrStdout(), policies)
}
