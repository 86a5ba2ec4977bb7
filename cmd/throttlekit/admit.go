package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/client"
)

// admitting is what the flags of admit say.
type admitting struct {
	hold  span
	drop  bool
	value units
	to    connection
	out   output
}

func newAdmit() *cobra.Command {
	a := &admitting{value: 1}
	cmd := &cobra.Command{
		Use:   "admit POLICY KEY [COST]",
		Short: "Ask for leave on every axis of a policy, and hold its slot for a while",
		Long: `Admit asks for leave on every axis of a policy at once: how much is in flight, how often, and at what cost. A leave
holds a slot, which admit keeps alive for --hold, or until a signal comes, and gives back then. It says which axis denied.

With --output json the line has the five fields of a decision, and leaseId, leaseExpiresAt (epoch milliseconds of the
server's clock), bindingAxis and policyDenied; what happens to the slot later is not in it.

Exit codes: 0 admitted and given back, 3 denied, 1 no answer or the slot was lost while it was held, 2 wrong usage, unknown
policy or one that admits nothing.`,
		Example: `  throttlekit admit jobs nightly --hold 5s
  throttlekit admit llm alice 250 --output json`,
		Args:              takes(2, 3),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              a.run,
	}
	f := cmd.Flags()
	f.Var(&a.hold, "hold", "how long to hold the slot; it is given back at once without")
	f.BoolVar(&a.drop, "drop", false, "give the slot back as that of work which failed because of load")
	f.Var(&a.value, "value", "what the request is worth, to policies with a price")
	a.out.define(cmd)
	a.to.define(cmd)
	return cmd
}

func (a *admitting) run(cmd *cobra.Command, args []string) error {
	cost := units(1)
	if len(args) > 2 {
		if err := cost.Set(args[2]); err != nil {
			return wrong("COST %w, got %q", err, args[2])
		}
	}
	ctx, release := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer release()
	opts := []client.AdmitOption{
		client.WithCost(int64(cost)), client.WithValue(int64(a.value)), client.WithHold(time.Duration(a.hold)), client.WithHeartbeat(),
	}
	var outcome error
	err := a.to.withClient(ctx, func(ctx context.Context, c *client.Client) error {
		admission, err := c.Admit(ctx, args[0], args[1], opts...)
		if err != nil {
			return err
		}
		if outcome = a.tell(cmd, args[1], admission); outcome == nil {
			outcome = a.keep(ctx, cmd, admission)
		}
		return nil
	})
	return errors.Join(err, outcome)
}

// tell prints the answer. The error is errDenied if that is what it says.
func (a *admitting) tell(cmd *cobra.Command, key string, admission *client.Admission) error {
	d := admission.Decision
	if a.out.json() {
		lease, expires := admission.Lease()
		line := struct {
			decision

			LeaseID        string `json:"leaseId"`
			LeaseExpiresAt int64  `json:"leaseExpiresAt"`
			BindingAxis    string `json:"bindingAxis"`
			PolicyDenied   bool   `json:"policyDenied"`
		}{
			decision{d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis, d.RetryAfterMillis},
			lease, expires, admission.Binding, admission.PolicyDenied,
		}
		if err := json.NewEncoder(cmd.OutOrStdout()).Encode(line); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(cmd.OutOrStdout(), describeAdmission(key, admission)); err != nil {
		return err
	}
	if !d.Allowed {
		return errDenied
	}
	return nil
}

// describeAdmission is an admission in words.
func describeAdmission(key string, a *client.Admission) string {
	line := "allowed"
	if !a.Allowed {
		line = "denied "
	}
	line += fmt.Sprintf("  %s: %d of %d left", shown(key), a.Remaining, a.Limit)
	switch {
	case a.Allowed && !a.Held():
		return line + ", decided by the fail mode of the server because its store could not; no slot is held"
	case a.PolicyDenied:
		return line + ", not worth its price"
	case a.Allowed:
		return line
	}
	line += ", by " + a.Binding
	if a.RetryAfterMillis > 0 {
		line += ", retry in " + readable(a.RetryAfter())
	}
	return line
}

// keep holds the slot for as long as it is wanted, and gives it back.
func (a *admitting) keep(ctx context.Context, cmd *cobra.Command, admission *client.Admission) error {
	if a.hold > 0 && admission.Held() {
		done := time.NewTimer(time.Duration(a.hold))
		defer done.Stop()
		select {
		case <-done.C:
		case <-ctx.Done():
		case <-admission.Reclaimed():
			return errors.New("the slot was lost: the server has taken it back, or did not answer for as long as a lease lasts")
		}
	}
	end, how := admission.Release, "released"
	if a.drop {
		end, how = admission.Drop, "dropped"
	}
	if err := end(); err != nil {
		return fmt.Errorf("the server did not hear that the slot is free and will take it back by itself: %w", a.to.explain(err))
	}
	if lease, _ := admission.Lease(); lease != "" && !a.out.json() {
		sayf(cmd.OutOrStdout(), "%s\n", how)
	}
	return nil
}
