package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
)

func newDebit() *cobra.Command {
	var (
		to  connection
		out output
	)
	cmd := &cobra.Command{
		Use:   "debit POLICY KEY [TOKENS]",
		Short: "Book tokens that were spent against the token budget of a key",
		Long: `Debit books tokens that were spent already, one unless told otherwise, against the budget of a key and prints how it
stands. It is refused only once the budget is used up: the debit that crosses the line is allowed and booked in full,
and a refused one books nothing.

With --output json the line has the five fields of a decision: allowed, limit, remaining, resetAt (epoch milliseconds)
and retryAfterMs.

Exit codes: 0 booked, 3 refused, 1 no answer, 2 wrong usage, unknown policy or one without a token budget. A debit is
sent once. After exit code 1 it may have been booked or not.`,
		Example: `  throttlekit debit tokens alice 250
  throttlekit debit tokens "$user" "$used" --output json`,
		Args:              takes(2, 3),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			tokens := units(1)
			if len(args) > 2 {
				if err := tokens.Set(args[2]); err != nil {
					return wrong("TOKENS %w, got %q", err, args[2])
				}
			}
			decisions := make([]throttlekit.Decision, 1)
			err := to.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) (err error) {
				decisions[0], err = c.Debit(ctx, args[0], args[1], int64(tokens))
				return err
			})
			if err != nil {
				return err
			}
			return out.decisions(cmd, args[1:2], decisions, 1) // no debit is too large, so its size explains no refusal
		},
	}
	out.define(cmd)
	to.define(cmd)
	return cmd
}
