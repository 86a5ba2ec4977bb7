package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
)

func newCheck() *cobra.Command {
	var (
		to   connection
		out  output
		cost = units(1)
	)
	cmd := &cobra.Command{
		Use:   "check POLICY KEY...",
		Short: "Ask a server whether a request may go ahead, and charge it if so",
		Long: `Check asks a running server for a decision on each key and prints one line for each, in order. Several keys are
decided at one instant, and each stands for itself.

With --output json a line has the five fields of a decision: allowed, limit, remaining, resetAt (epoch milliseconds)
and retryAfterMs.

Exit codes: 0 all keys are allowed, 3 at least one is denied, 1 no answer, 2 wrong usage or unknown policy.`,
		Example: `  throttlekit check default alice
  throttlekit check api alice --cost 5 --output json
  throttlekit check login "$user" && try-login "$user"`,
		Args:              takes(2, -1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, keys := args[0], args[1:]
			var decisions []throttlekit.Decision
			err := to.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) (err error) {
				decisions, err = check(ctx, c, policy, keys, int64(cost))
				return err
			})
			if err != nil {
				return err
			}
			return out.decisions(cmd, keys, decisions, cost)
		},
	}
	cmd.Flags().Var(&cost, "cost", "what a request costs")
	out.define(cmd)
	to.define(cmd)
	return cmd
}

// check takes one call however many keys there are. One key does without CheckMany, which not every policy can do.
func check(ctx context.Context, c *client.Client, policy string, keys []string, cost int64) ([]throttlekit.Decision, error) {
	if len(keys) > 1 {
		return c.CheckMany(ctx, policy, keys, cost)
	}
	d, err := c.CheckN(ctx, policy, keys[0], cost)
	return []throttlekit.Decision{d}, err
}
