package budget

import (
	"errors"
	"math"
)

// LearnedConfig describes a [Learned] reservation.
type LearnedConfig struct {
	// HoldCost is what a token costs that was reserved and not used, OverrunCost what one costs
	// that was used and not reserved; positive. They default to 1 and 9, which makes the quantile 0.9.
	HoldCost, OverrunCost float64
	// Max and Min bound the reservation, in tokens; 0 <= Min <= Max, and Max is positive. They
	// default to 4096 and 0.
	Max, Min float64
	// Initial is the first reservation, clamped into the bounds. Zero means their middle.
	Initial float64
	// StepScale is how far the first step moves at a cost of 1; positive. Defaults to
	// (Max-Min)/max(HoldCost, OverrunCost), at least 1e-6.
	StepScale float64
}

func defaulted(x *float64, value float64) {
	if *x == 0 {
		*x = value
	}
}

func (c LearnedConfig) complete() (LearnedConfig, error) {
	defaulted(&c.HoldCost, 1)
	defaulted(&c.OverrunCost, 9)
	defaulted(&c.Max, 4096)
	defaulted(&c.Initial, (c.Min+c.Max)/2)
	defaulted(&c.StepScale, max((c.Max-c.Min)/max(c.HoldCost, c.OverrunCost), 1e-6))
	var f faults
	positive := func(field string, x float64) {
		f.require(x > 0 && x <= MaxTokens, field, x, "must be a positive number of at most 4503599627370496")
	}
	positive("holdCost", c.HoldCost)
	positive("overrunCost", c.OverrunCost)
	positive("maxReservation", c.Max)
	f.require(c.Min >= 0 && c.Min <= c.Max, "minReservation", c.Min, "must be a number from 0 to maxReservation")
	f.require(finite(c.Initial), "initialReservation", c.Initial, "must be a finite number")
	if len(f) == 0 { // else its default is wrong as well
		f.require(c.StepScale > 0 && finite(c.StepScale), "stepScale", c.StepScale, "must be a positive finite number")
	}
	if len(f) > 0 {
		return c, joined(f)
	}
	return c, nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func clamp(x, lo, hi float64) float64 { return min(hi, max(lo, x)) }

// rounded is ⌊x+½⌋, but never beyond a fractional maximum.
func (c *LearnedConfig) rounded(x float64) float64 {
	return min(math.Floor(x+0.5), max(math.Floor(c.Max), math.Ceil(c.Min)))
}

// loss is that of the newsvendor: for what was held too much, or too little.
func (c *LearnedConfig) loss(reserved, cost float64) float64 {
	return float64(c.HoldCost*max(0, reserved-cost)) + float64(c.OverrunCost*max(0, cost-reserved))
}

// Learned learns how many tokens to reserve for requests of unknown cost: the quantile
// OverrunCost/(HoldCost+OverrunCost) of the costs, by online gradient descent on the newsvendor's
// loss. Its regret against the best fixed reservation is at most 1.5·(Max-Min)·max(HoldCost,
// OverrunCost)·√n after n costs. It is not safe for concurrent use.
//
// Sources: M. Zinkevich, Online convex programming (2003); the specification's §1.3.
type Learned struct {
	config LearnedConfig
	r      float64
	seen   float64
}

// NewLearned returns a reservation at its initial size. The error matches [throttlekit.ErrInvalid].
func NewLearned(config LearnedConfig) (*Learned, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	return &Learned{config: config, r: clamp(config.Initial, config.Min, config.Max)}, nil
}

// Reserve is how many whole tokens to reserve for the next request.
func (l *Learned) Reserve() float64 { return l.config.rounded(l.r) }

// Continuous is the reservation before it is rounded.
func (l *Learned) Continuous() float64 { return l.r }

// CriticalFractile is the quantile that is learned, between 0 and 1.
func (l *Learned) CriticalFractile() float64 {
	return l.config.OverrunCost / (l.config.HoldCost + l.config.OverrunCost)
}

func observable(cost float64) bool { return cost >= 0 && !math.IsInf(cost, 1) }

// Observe tells what a request cost in the end. A cost that is negative or not finite teaches nothing.
func (l *Learned) Observe(cost float64) {
	if !observable(cost) {
		return
	}
	l.seen++
	g := -l.config.OverrunCost
	if l.r > cost {
		g = l.config.HoldCost
	}
	l.r = clamp(l.r-float64(l.config.StepScale/math.Sqrt(l.seen)*g), l.config.Min, l.config.Max)
}

// ObserveAtLeast tells what a request had cost when it was cut off: the whole would have been that
// or more. It teaches only where that is enough to know which way to go.
func (l *Learned) ObserveAtLeast(cost float64) {
	if observable(cost) && cost >= l.r {
		l.Observe(cost)
	}
}

// PredictiveConfig describes a [Predictive] reservation.
type PredictiveConfig struct {
	LearnedConfig

	// LearningRate is how fast trust moves between hints and experience; positive. Defaults to 0.01.
	LearningRate float64
}

// Predictive follows hints about the cost of requests as far as they have been good: it mixes the
// hint with a [Learned] reservation, weighted by what either would have lost so far. It is not safe
// for concurrent use.
//
// Sources: Y. Freund, R. Schapire, A decision-theoretic generalization of on-line learning (1997),
// algorithm Hedge; the specification's §1.4.
type Predictive struct {
	robust              *Learned
	rate                float64
	followed, withstood float64 // losses of the hints and of what was learned
	trust               float64
	last                play
}

// play is what one reservation was mixed from.
type play struct{ follow, robust float64 }

// NewPredictive returns a reservation that trusts both equally. The error matches [throttlekit.ErrInvalid].
func NewPredictive(config PredictiveConfig) (*Predictive, error) {
	robust, err := NewLearned(config.LearnedConfig)
	var f faults
	if err != nil {
		f = append(f, err)
	}
	defaulted(&config.LearningRate, 0.01)
	f.require(config.LearningRate > 0 && finite(config.LearningRate), "learningRate", config.LearningRate,
		"must be a positive finite number")
	if len(f) > 0 {
		return nil, errors.Join(f...)
	}
	least := robust.config.Min
	return &Predictive{robust: robust, rate: config.LearningRate, trust: 0.5, last: play{least, least}}, nil
}

func (p *Predictive) clone() *Predictive {
	robust, one := *p.robust, *p
	one.robust = &robust
	return &one
}

// Trust is the weight of hints in the mix, from 0 to 1.
func (p *Predictive) Trust() float64 { return p.trust }

// weigh brings the trust up to date with the losses.
func (p *Predictive) weigh() {
	least := min(p.followed, p.withstood)
	follow, robust := math.Exp(-p.rate*(p.followed-least)), math.Exp(-p.rate*(p.withstood-least))
	p.trust = follow / (follow + robust)
}

// Reserve is how many whole tokens to reserve for a request with a hint at its cost. A hint that is
// negative or not finite is none.
func (p *Predictive) Reserve(hint float64) float64 {
	reserved, play := p.mix(hint)
	p.last = play
	return reserved
}

func (p *Predictive) mix(hint float64) (reserved float64, of play) {
	c := &p.robust.config
	of.robust = p.robust.Reserve()
	of.follow = of.robust
	if observable(hint) {
		of.follow = clamp(hint, c.Min, c.Max)
	}
	if of.follow == of.robust {
		return of.robust, of
	}
	return c.rounded(clamp(float64(p.trust*of.follow)+float64((1-p.trust)*of.robust), c.Min, c.Max)), of
}

// Observe tells what the request of the latest Reserve cost in the end. A cost that is negative or
// not finite teaches nothing.
func (p *Predictive) Observe(cost float64) { p.learn(p.last, cost, true) }

// learn tells what a request cost in the end, or, if not whole, when it was cut off. That says
// nothing about which of the two was better.
func (p *Predictive) learn(of play, cost float64, whole bool) {
	switch {
	case !observable(cost):
	case !whole:
		p.robust.ObserveAtLeast(cost)
	default:
		if of.follow != of.robust { // else neither was better
			p.judge(of, cost)
		}
		p.robust.Observe(cost)
	}
}

// judge adds what either would have lost.
func (p *Predictive) judge(of play, cost float64) {
	c := &p.robust.config
	followed, withstood := p.followed+c.loss(of.follow, cost), p.withstood+c.loss(of.robust, cost)
	if finite(followed) && finite(withstood) {
		p.followed, p.withstood = followed, withstood
		p.weigh()
	}
}
