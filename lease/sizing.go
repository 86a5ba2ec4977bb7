package lease

import (
	"fmt"
	"math"

	"github.com/throttlekit/throttlekit-go"
)

// Sizer chooses how many units a lease asks for. It need not be safe for concurrent use.
type Sizer interface {
	// Size is the next lease's size, at least 1.
	Size() float64
	// Observe tells how many units were served in a window that has ended.
	Observe(demand float64)
}

// LearnerConfig describes a [Learner]. The zero value is usable.
type LearnerConfig struct {
	// OrderCost is what one round trip costs; positive. Defaults to 1.
	OrderCost float64
	// StrandPenalty is what one unit costs that is left over at a window's end, in the
	// same currency; positive. Defaults to 1.
	StrandPenalty float64
	// MinSize and MaxSize bound the size; at least 1. They default to 1 and 1,000,000.
	MinSize, MaxSize float64
	// InitialSize is the first size, clamped into the bounds. Defaults to MinSize.
	InitialSize float64
	// StepScale is how far the logarithm of the size moves in the first step; positive.
	// Defaults to the logarithm of MaxSize/MinSize, at most 1. A larger value makes one
	// window of little or much demand throw the size across its whole range.
	StepScale float64
	// Epsilon keeps the first step finite; positive. Defaults to 1e-8.
	Epsilon float64
}

func (c LearnerConfig) complete() (LearnerConfig, error) {
	defaulted := func(x *float64, value float64) {
		if *x == 0 {
			*x = value
		}
	}
	defaulted(&c.OrderCost, 1)
	defaulted(&c.StrandPenalty, 1)
	defaulted(&c.MinSize, 1)
	defaulted(&c.MaxSize, 1_000_000)
	defaulted(&c.InitialSize, c.MinSize)
	defaulted(&c.Epsilon, 1e-8)
	defaulted(&c.StepScale, math.Min(math.Max(math.Log(c.MaxSize)-math.Log(c.MinSize), 1e-6), 1))
	for _, check := range []struct {
		field string
		value float64
		least float64
		rule  string
	}{
		{"minSize", c.MinSize, 1, "must be a finite number >= 1"},
		{"maxSize", c.MaxSize, c.MinSize, fmt.Sprintf("must be a finite number >= minSize, which is %v", c.MinSize)},
		{"initialSize", c.InitialSize, 1, "must be a finite number >= 1"},
		{"orderCost", c.OrderCost, smallest, positive},
		{"strandPenalty", c.StrandPenalty, smallest, positive},
		{"stepScale", c.StepScale, smallest, positive},
		{"epsilon", c.Epsilon, smallest, positive},
	} {
		if !(check.value >= check.least) || math.IsInf(check.value, 1) {
			return c, &throttlekit.InvalidError{Field: check.field, Value: check.value, Rule: check.rule}
		}
	}
	return c, nil
}

const (
	smallest = math.SmallestNonzeroFloat64
	positive = "must be a positive finite number"
)

// Learner learns the size of leases from the demand of past windows. It descends the cost
// orderCost·demand/size + strandPenalty·size/2 of the economic order quantity in the
// logarithm of the size, with AdaGrad steps: its regret against the best fixed size grows
// as the square root of the number of windows. Sizes decide only what leasing costs, never
// whether the limit holds.
//
// Sources: F. W. Harris, How many parts to make at once (1913); J. Duchi, E. Hazan,
// Y. Singer, Adaptive subgradient methods (2011).
type Learner struct {
	config LearnerConfig
	lo, hi float64 // bounds of x
	x      float64 // logarithm of the size
	sum    float64 // of squared gradients
}

// NewLearner returns a learner at its initial size. The error matches [throttlekit.ErrInvalid].
func NewLearner(config LearnerConfig) (*Learner, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	l := &Learner{config: config, lo: math.Log(config.MinSize), hi: math.Log(config.MaxSize)}
	l.x = clamp(math.Log(config.InitialSize), l.lo, l.hi)
	return l, nil
}

// Size implements [Sizer]. It is a whole number.
func (l *Learner) Size() float64 { return l.rounded(math.Exp(l.x)) }

// rounded is a whole size within the bounds; halves round up.
func (l *Learner) rounded(size float64) float64 {
	return math.Min(math.Floor(clamp(size, l.config.MinSize, l.config.MaxSize)+0.5), math.Floor(l.config.MaxSize))
}

// Observe implements [Sizer]. A demand that is negative or not finite teaches nothing.
func (l *Learner) Observe(demand float64) {
	if !observable(demand) {
		return
	}
	b := math.Exp(l.x)
	g := float64(-l.config.OrderCost*demand/b) + float64(l.config.StrandPenalty/2*b)
	sum := l.sum + float64(g*g)
	if math.IsInf(sum, 1) {
		return
	}
	l.sum = sum
	l.x = clamp(l.x-float64(l.config.StepScale*g/math.Sqrt(l.config.Epsilon+l.sum)), l.lo, l.hi)
}

func observable(demand float64) bool { return demand >= 0 && !math.IsInf(demand, 1) }

func clamp(x, lo, hi float64) float64 { return math.Max(lo, math.Min(hi, x)) }

// EOQ is the economic order quantity √(2·orderCost·demand/strandPenalty): the size of
// lease that costs least at a steady demand. It is 0 if there is no demand.
func EOQ(orderCost, strandPenalty, demand float64) float64 {
	if !(demand > 0) {
		return 0
	}
	return math.Sqrt(2 * orderCost * demand / strandPenalty)
}

// cost is what leases of a size cost in a window of the given demand.
func (l *Learner) cost(size, demand float64) float64 {
	if !(demand > 0) {
		return 0
	}
	return float64(l.config.OrderCost*demand/size) + float64(l.config.StrandPenalty*size/2)
}

// PredictorConfig describes a [Predictor].
type PredictorConfig struct {
	LearnerConfig

	// LearningRate is how fast the predictor changes whom it trusts; positive. Defaults to 0.01.
	LearningRate float64
	// Predict says what demand to expect in the coming window. A prediction that is not
	// positive and finite counts as none. It is required. Size calls it, which a holder does
	// with its lock held: it must not call the holder.
	Predict func() float64
}

// Predictor follows predictions of demand as far as they have been good: it mixes the best
// size for the prediction with that of a [Learner], weighted by what each would have cost so
// far. Good predictions make it nearly as cheap as knowing the demand, bad ones hardly
// dearer than the learner. Source: Y. Freund, R. Schapire, A decision-theoretic
// generalization of on-line learning (1997), algorithm Hedge.
type Predictor struct {
	learner             *Learner
	rate                float64
	predict             func() float64
	follow, robust      float64 // sizes of the last mix
	followed, withstood float64 // losses of either
}

// NewPredictor returns a predictor that trusts both equally. The error matches [throttlekit.ErrInvalid].
func NewPredictor(config PredictorConfig) (*Predictor, error) {
	learner, err := NewLearner(config.LearnerConfig)
	if err != nil {
		return nil, err
	}
	if config.LearningRate == 0 {
		config.LearningRate = 0.01
	}
	if !(config.LearningRate > 0) || math.IsInf(config.LearningRate, 1) {
		return nil, &throttlekit.InvalidError{Field: "learningRate", Value: config.LearningRate, Rule: positive}
	}
	if config.Predict == nil {
		return nil, &throttlekit.InvalidError{Field: "predict", Value: nil, Rule: "must be given"}
	}
	least := learner.config.MinSize
	return &Predictor{learner: learner, rate: config.LearningRate, predict: config.Predict, follow: least, robust: least}, nil
}

// Trust is the weight of the predictions in the mix, from 0 to 1.
func (p *Predictor) Trust() float64 {
	least := math.Min(p.followed, p.withstood)
	follow, robust := math.Exp(-p.rate*(p.followed-least)), math.Exp(-p.rate*(p.withstood-least))
	return follow / (follow + robust)
}

// Size implements [Sizer]. It is a whole number.
func (p *Predictor) Size() float64 {
	c := p.learner.config
	p.follow, p.robust = c.MinSize, p.learner.Size()
	if prediction := p.predict(); prediction > 0 && !math.IsInf(prediction, 1) {
		p.follow = p.learner.rounded(EOQ(c.OrderCost, c.StrandPenalty, prediction))
	}
	trust := p.Trust()
	return p.learner.rounded(float64(trust*p.follow) + float64((1-trust)*p.robust))
}

// Observe implements [Sizer]. A demand that is negative or not finite teaches nothing.
func (p *Predictor) Observe(demand float64) {
	if !observable(demand) {
		return
	}
	followed, withstood := p.followed+p.learner.cost(p.follow, demand), p.withstood+p.learner.cost(p.robust, demand)
	if math.IsInf(followed, 1) || math.IsInf(withstood, 1) {
		return
	}
	p.followed, p.withstood = followed, withstood
	p.learner.Observe(demand)
}
