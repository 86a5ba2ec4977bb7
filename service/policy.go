package service

import (
	"context"
	"time"

	"github.com/throttlekit/throttlekit-go"
	"github.com/throttlekit/throttlekit-go/fair"
	"github.com/throttlekit/throttlekit-go/lease"
)

// Policy is a named rule that a service answers for. What it can do it says by also
// being a Checker, BatchChecker, Peeker, Forecaster, Debiter or Reserver.
type Policy interface {
	// Info describes the policy. It does not change.
	Info() Info
	// Close releases what the policy holds. It is called once.
	Close() error
}

// Info describes a policy.
type Info struct {
	// Name is unique in a service.
	Name string
	// Kind is the kind of the policy as the policy file spells it, or "plain".
	Kind string
	// Strategy is the name of its strategy, or empty.
	Strategy string
	// Limit is what its decisions report as their limit.
	Limit int64
	// FailMode says what the policy answers when its store cannot. Empty means the service's.
	FailMode FailMode
}

// FailMode says what to answer when the store cannot decide.
type FailMode string

// The fail modes, spelled as flags and policy files spell them.
const (
	// FailOpen admits.
	FailOpen FailMode = "open"
	// FailClosed denies.
	FailClosed FailMode = "closed"
)

// Steadfast is a policy that answers by itself while its store does not, so that the fail
// mode never hears of it. The service logs what it is told, at most once in ten seconds.
type Steadfast interface {
	// TellOutages has f told each time that the store does not answer. It is called once,
	// before the first request; f may be called by many goroutines at once.
	TellOutages(f func(err error))
}

// Checker decides on one request.
type Checker interface {
	Check(ctx context.Context, key string, cost float64) (throttlekit.Decision, error)
}

// BatchChecker decides on one request for each key, at one instant, in the order of the keys.
type BatchChecker interface {
	CheckMany(ctx context.Context, keys []string, cost float64) ([]throttlekit.Decision, error)
}

// Peeker looks at what a check of cost 1 would answer, charging nothing.
type Peeker interface {
	Peek(ctx context.Context, key string) (throttlekit.Decision, error)
}

// Forecaster says what a key could spend and when it gets more, charging nothing.
type Forecaster interface {
	Forecast(ctx context.Context, key string, cost float64) (throttlekit.Forecast, error)
}

// Debiter meters tokens that were produced already. The debit that crosses the budget is
// allowed and counted in full; those that follow in the same window are denied.
type Debiter interface {
	// Debit counts tokens, from 1 to 2^53-1, whole or not at all.
	Debit(ctx context.Context, key string, tokens int64) (throttlekit.Decision, error)
}

// Grant is what a [Reserver] lends.
type Grant = lease.Grant

// Reserver lends units of a budget, which their holder then spends without asking again.
type Reserver interface {
	// Reserve takes up to wants units, at least 1, out of the budget of a domain. A budget
	// with nothing left lends 0 units, with the denial that a check would get.
	Reserve(ctx context.Context, domain string, wants int64) (Grant, error)
}

// Guarded is a policy that limits how much is in flight.
type Guarded interface {
	Guard() GuardState
}

// GuardState is how a guard stands at one moment.
type GuardState struct {
	// Policy is the name of the policy.
	Policy string
	// Limit is how many may be in flight here, as the guard has learned so far; InFlight how
	// many are, and Waiting how many callers wait.
	Limit, InFlight, Waiting int
	// NoLoad is the latency without load, 0 before it is known; Last the latest one.
	NoLoad, Last time.Duration
	// Fleet is how the guard stands among others, nil if it stands alone.
	Fleet *FleetState
}

// FleetState is what a guard knows of its fleet.
type FleetState struct {
	// Share is how many slots this process may use, of Ceiling for Nodes processes together.
	Share, Ceiling, Nodes int
	// Fenced says that the share may have been given away, so that nothing is admitted.
	Fenced bool
	// Margin is how long before that the policy stops admitting if it is not heard; 0 if it does
	// not. Strict says that the ceiling is never exceeded by work that ends within Margin.
	Margin time.Duration
	Strict bool
}

// Sharer is a policy that divides a limit among tenants.
type Sharer interface {
	Shares() ShareState
}

// ShareState is how the tenants of a policy stand.
type ShareState struct {
	// Policy is the name of the policy.
	Policy string
	// Unit is what is counted, for people to read.
	Unit string
	// Shown says that tenants may be shown by name, at most MaxTenants of them with Points
	// points in time each.
	Shown              bool
	MaxTenants, Points int
	// Window is how wide a window of the limit is.
	Window time.Duration
	// Stats are the shares.
	Stats fair.Stats
}

// Fenceable is a policy that stops admitting when its share of a fleet may have been given away.
type Fenceable interface {
	// TellFences has f told each time. It is called once, before the first request.
	TellFences(f func())
}
