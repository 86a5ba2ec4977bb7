package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
)

func newPeek() *cobra.Command {
	var (
		to  connection
		out output
	)
	cmd := &cobra.Command{
		Use:   "peek POLICY KEY...",
		Short: "Ask a server what a check would answer, charging nothing",
		Long: `Peek prints the decision that a check of cost 1 would get now, one line for each key, in order. It charges nothing.

With --output json a line has the five fields of a decision: allowed, limit, remaining, resetAt (epoch milliseconds)
and retryAfterMs.

Exit codes: 0 all keys would be allowed, 3 at least one would be denied, 1 no answer, 2 wrong usage or unknown policy.`,
		Example:           "  throttlekit peek default alice bob",
		Args:              takes(2, -1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, keys := args[0], args[1:]
			decisions := make([]throttlekit.Decision, len(keys))
			err := to.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) (err error) {
				for i := 0; i < len(keys) && err == nil; i++ {
					decisions[i], err = c.Peek(ctx, policy, keys[i])
				}
				return err
			})
			if err != nil {
				return err
			}
			return out.decisions(cmd, keys, decisions, 1)
		},
	}
	out.define(cmd)
	to.define(cmd)
	return cmd
}
