package main

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/server/monitor"
)

func newExplain() *cobra.Command {
	var (
		to   watching
		out  output
		cost = units(1)
	)
	cmd := &cobra.Command{
		Use:   "explain POLICY KEY",
		Short: "Say what would happen to a key now, and why",
		Long: `Explain tells what a request for a key would get now, without making one: the rule, what the key has left, what would
stop it next and when that ends. What Peek and Forecast cannot tell, such as how a guard or a tenant's share stands and
when the key was denied last, it takes from the server's Monitor door, if that lets itself be asked (--monitor-secret).

Policies that cannot be peeked at, such as guards, budgets and fair shares, say so, and what is known of them is shown.

Exit codes: 0 it would be allowed, or nobody can tell; 3 it would be denied; 1 no answer; 2 wrong usage or unknown policy.`,
		Example:           "  throttlekit explain api alice\n  throttlekit explain api alice --cost 5 --output json",
		Args:              takes(2, 2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := to.settle(cmd); err != nil {
				return err
			}
			var e explanation
			err := to.withClient(cmd.Context(), func(ctx context.Context, c *client.Client) (err error) {
				e, err = to.ask(ctx, c, args[0], args[1], int64(cost))
				return err
			})
			if err != nil {
				return err
			}
			return out.explanation(cmd, &e)
		},
	}
	cmd.Flags().Var(&cost, "cost", "what the request would cost")
	out.define(cmd)
	to.define(cmd)
	return cmd
}

// What would happen to a request.
const (
	verdictAllowed = "allowed"
	verdictDenied  = "denied"
	verdictUnknown = "unknown"
)

// explanation is what is known of a key. What is not is nil.
type explanation struct {
	Policy  string `json:"policy"`
	Key     string `json:"key"`
	Cost    int64  `json:"cost"`
	Verdict string `json:"verdict"`
	// Binds is the axis that denies now, or will first.
	Binds string `json:"binds,omitempty"`
	// FreesAt is when what binds gives way, or next grows, in epoch milliseconds.
	FreesAt  int64         `json:"freesAt,omitempty"`
	Peek     *decision     `json:"peek,omitempty"`
	Forecast *forecastJSON `json:"forecast,omitempty"`
	// CannotPeek and CannotWatch are why there is no more.
	CannotPeek  string `json:"cannotPeek,omitempty"`
	CannotWatch string `json:"cannotWatch,omitempty"`

	// The rest comes from the Monitor door.
	Rule       *ruleJSON          `json:"rule,omitempty"`
	Window     *monitor.Analytics `json:"window,omitempty"`
	Guard      *monitor.Guard     `json:"guard,omitempty"`
	Tenant     *monitor.Tenant    `json:"tenant,omitempty"`
	Share      *monitor.Share     `json:"-"`
	LastDenial *monitor.Denial    `json:"lastDenial,omitempty"`
}

// forecastJSON is a forecast as JSON.
type forecastJSON struct {
	SpendableNow    int64 `json:"spendableNow"`
	NextReplenishAt int64 `json:"nextReplenishAt"`
	FullAt          int64 `json:"fullAt"`
}

// ruleJSON is what a policy is.
type ruleJSON struct {
	Kind     string `json:"kind"`
	Strategy string `json:"strategy,omitempty"`
	Limit    int64  `json:"limit,omitempty"`
	FailMode string `json:"failMode"`
	Store    string `json:"store,omitempty"`
}

// ask finds out what the wire tells, and charges nothing.
func (w *watching) ask(ctx context.Context, c *client.Client, policy, key string, cost int64) (explanation, error) {
	e := explanation{Policy: policy, Key: key, Cost: cost, Verdict: verdictUnknown}
	d, err := c.Peek(ctx, policy, key)
	switch {
	case errors.Is(err, throttlekit.ErrUnsupported):
		e.CannotPeek = message(strings.TrimPrefix(w.explain(err).Error(), throttlekit.ErrUnsupported.Error()+": "))
	case err != nil:
		return e, err
	default:
		e.Peek = &decision{d.Allowed, d.Limit, d.Remaining, d.ResetAtMillis, d.RetryAfterMillis}
	}
	f, err := c.Forecast(ctx, policy, key, cost)
	switch {
	case err == nil:
		e.Forecast = &forecastJSON{f.SpendableNow, f.NextReplenishAtMillis, f.FullAtMillis}
	case !errors.Is(err, throttlekit.ErrUnsupported):
		return e, err
	}
	from, err := w.source(c)
	if err != nil {
		return e, err
	}
	snapshot, err := from.Snapshot(ctx)
	if err != nil {
		e.CannotWatch = message(w.explainWatch(err).Error())
	} else {
		e.watched(&snapshot)
	}
	e.conclude()
	return e, nil
}

// watched takes from a snapshot what it says about the policy and the key.
func (e *explanation) watched(s *monitor.Snapshot) {
	for i := range s.Policies {
		p := &s.Policies[i]
		if p.Name != e.Policy {
			continue
		}
		e.Rule = &ruleJSON{Kind: p.PolicyKind, Strategy: p.Strategy, Limit: p.Limit, FailMode: string(p.FailMode)}
		if s.Health != nil {
			e.Rule.Store = s.Health.Backend
		}
		e.Window = &p.Analytics
	}
	for i := range s.Guards {
		if s.Guards[i].Name == e.Policy {
			e.Guard = &s.Guards[i]
		}
	}
	for i := range s.Stats {
		if s.Stats[i].Name != e.Policy {
			continue
		}
		e.Share = &s.Stats[i]
		at := slices.IndexFunc(e.Share.Value.Tenants, func(t monitor.Tenant) bool { return t.Tenant == e.Key })
		if at >= 0 {
			e.Tenant = &e.Share.Value.Tenants[at]
		}
	}
	for _, d := range slices.Backward(s.RecentDenials) {
		if d.Policy == e.Policy && d.Key == e.Key {
			e.LastDenial = &d
			break
		}
	}
}

// conclude says what all of it comes to.
func (e *explanation) conclude() {
	switch {
	case e.Peek != nil:
		e.Binds, e.Verdict = e.axis(), verdictAllowed
		if !e.Peek.Allowed {
			e.Verdict, e.FreesAt = verdictDenied, e.frees()
		}
		if f := e.Forecast; f != nil {
			if e.Cost > 1 && f.SpendableNow < 1 {
				e.Verdict = verdictDenied
			}
			e.FreesAt = f.NextReplenishAt
		}
	case e.Guard != nil:
		e.Binds = "concurrency"
		if e.Guard.InFlight >= e.ceiling() || e.fenced() {
			e.Verdict = verdictDenied
		}
	case e.Rule != nil:
		e.Binds = e.axis()
	}
}

// frees is when a denied key may ask again, as the server said.
func (e *explanation) frees() int64 {
	if e.Peek.RetryAfterMS == 0 {
		return 0
	}
	return nowMillis() + e.Peek.RetryAfterMS
}

func (e *explanation) fenced() bool { return e.Guard.Fenced != nil && *e.Guard.Fenced }

// ceiling is how many slots of a guard this server may use.
func (e *explanation) ceiling() int {
	if e.Guard.Share != nil {
		return min(e.Guard.Limit, *e.Guard.Share)
	}
	return e.Guard.Limit
}

// axis is the only one of a policy without a guard.
func (e *explanation) axis() string {
	if e.Rule == nil {
		return "rate"
	}
	switch e.Rule.Kind {
	case "tokenBudget", "fleetBudget":
		return "cost"
	case "fairEscrow", "federatedFairEscrow":
		return "fairness"
	}
	return "rate"
}

// explanation prints it. The error is errDenied if the request would be.
func (o *output) explanation(cmd *cobra.Command, e *explanation) error {
	var err error
	if o.json() {
		err = json.NewEncoder(cmd.OutOrStdout()).Encode(e)
	} else {
		_, err = cmd.OutOrStdout().Write([]byte(e.text()))
	}
	if err == nil && e.Verdict == verdictDenied {
		return errDenied
	}
	return err
}
