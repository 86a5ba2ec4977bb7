package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
)

func newForecast() *cobra.Command {
	var (
		to   connection
		out  output
		cost = units(1)
	)
	cmd := &cobra.Command{
		Use:   "forecast POLICY KEY...",
		Short: "Ask a server what a key can spend, and when it gets more",
		Long: `Forecast prints how many requests of a cost each key could make now, when its next unit comes back and when its
limit is whole again, one line for each key, in order. It charges nothing.

With --output json a line has spendableNow, nextReplenishAt and fullAt, the last two in epoch milliseconds.

Exit codes: 0 answered, 1 no answer, 2 wrong usage or unknown policy.`,
		Example:           "  throttlekit forecast default alice\n  throttlekit forecast api alice --cost 5",
		Args:              takes(2, -1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return to.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				for _, key := range args[1:] {
					f, err := c.Forecast(ctx, args[0], key, int64(cost))
					if err != nil {
						return err
					}
					if err := out.forecast(cmd, key, f, cost); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().Var(&cost, "cost", "what each of the requests would cost")
	out.define(cmd)
	to.define(cmd)
	return cmd
}

// forecast prints the answer for a key.
func (o *output) forecast(cmd *cobra.Command, key string, f throttlekit.Forecast, cost units) error {
	if o.json() {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
			SpendableNow    int64 `json:"spendableNow"`
			NextReplenishAt int64 `json:"nextReplenishAt"`
			FullAt          int64 `json:"fullAt"`
		}{f.SpendableNow, f.NextReplenishAtMillis, f.FullAtMillis})
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: can spend %s of cost %d now, next unit %s, whole again %s\n",
		shown(key), count(int(f.SpendableNow), "request"), int64(cost), at(f.NextReplenishAt()), at(f.FullAt()))
	return err
}
