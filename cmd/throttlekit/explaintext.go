package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

func nowMillis() int64 { return time.Now().UnixMilli() }

// text is the explanation for people: what would happen, and then why, a fact on each line.
func (e *explanation) text() string {
	var b strings.Builder
	asked := fmt.Sprintf("%s in %s", shown(e.Key), shown(e.Policy))
	if e.Cost != 1 {
		asked += fmt.Sprintf(", cost %d", e.Cost)
	}
	switch e.Verdict {
	case verdictAllowed:
		fmt.Fprintf(&b, "would be allowed  %s\n", asked)
	case verdictDenied:
		fmt.Fprintf(&b, "would be denied  %s\n", asked)
	default:
		fmt.Fprintf(&b, "cannot be foreseen  %s\n", asked)
	}
	for _, fact := range []struct{ name, text string }{
		{"rule", e.ruleText()},
		{"left", e.leftText()},
		{"can spend", e.spendText()},
		{"in flight", e.guardText()},
		{"share", e.shareText()},
		{"binds", e.bindsText()},
		{"this window", e.windowText()},
		{"last denied", e.deniedText()},
		{"no peek", visible(e.CannotPeek)},
		{"not watched", visible(e.CannotWatch)},
	} {
		if fact.text != "" {
			fmt.Fprintf(&b, "  %-12s %s\n", fact.name, fact.text)
		}
	}
	return b.String()
}

func (e *explanation) ruleText() string {
	r := e.Rule
	if r == nil {
		if e.Peek != nil {
			return fmt.Sprintf("limit %d", e.Peek.Limit)
		}
		return ""
	}
	name := shown(cmp.Or(r.Strategy, r.Kind))
	if r.Strategy != "" && r.Kind != "plain" {
		name += " (" + shown(r.Kind) + ")"
	}
	limit := r.Limit
	if e.Peek != nil {
		limit = e.Peek.Limit
	}
	if limit > 0 {
		name += fmt.Sprintf(", limit %d", limit)
	}
	name += ", fail mode " + shown(r.FailMode)
	if r.Store != "" {
		name += ", store " + shown(r.Store)
	}
	return name
}

func (e *explanation) leftText() string {
	if e.Peek == nil {
		return ""
	}
	text := fmt.Sprintf("%d of %d", e.Peek.Remaining, e.Peek.Limit)
	if e.Peek.ResetAt > 0 {
		text += ", whole again " + at(time.UnixMilli(e.Peek.ResetAt))
	}
	return text
}

func (e *explanation) spendText() string {
	if e.Forecast == nil {
		return ""
	}
	return fmt.Sprintf("%s of cost %d now", count(int(e.Forecast.SpendableNow), "request"), e.Cost)
}

func (e *explanation) guardText() string {
	g := e.Guard
	if g == nil {
		return ""
	}
	text := fmt.Sprintf("%d of %d", g.InFlight, e.ceiling())
	if g.Share != nil && g.LGlobal != nil && g.Nodes != nil {
		text += fmt.Sprintf(", this server's part of %d on %s", *g.LGlobal, count(*g.Nodes, "server"))
	}
	text += fmt.Sprintf(", %d waiting", g.Waiting)
	if g.RTTNoLoad > 0 {
		text += fmt.Sprintf(", latest %s and %s without load", millisText(g.LastRTT), millisText(g.RTTNoLoad))
	}
	if e.fenced() {
		text += "; FENCED: it may have lost its part and admits nothing"
	}
	return text
}

func millisText(ms float64) string {
	d := time.Duration(math.Min(ms, 1e12) * float64(time.Millisecond))
	return d.Round(10 * time.Microsecond).String()
}

func (e *explanation) shareText() string {
	if e.Share == nil {
		return ""
	}
	v := &e.Share.Value
	whole := fmt.Sprintf("%.0f of %.0f units used by %s", v.TotalUsed, v.EffectiveLimit, count(v.TenantCount, "tenant"))
	if e.Tenant == nil {
		return whole + "; this one has used none"
	}
	text := fmt.Sprintf("%.0f used at weight %g", e.Tenant.Used, e.Tenant.Weight)
	if sure, known := guaranteed(v, e.Tenant); known {
		text += fmt.Sprintf(", %.0f guaranteed", sure)
	}
	return text + "; " + whole
}

// guaranteed is what a tenant gets whatever the others do, which is known if all of them are.
func guaranteed(v *monitor.ShareValue, t *monitor.Tenant) (units float64, known bool) {
	var weights float64
	for i := range v.Tenants {
		weights += v.Tenants[i].Weight
	}
	if weights <= 0 || v.TenantCount > len(v.Tenants) {
		return 0, false
	}
	return math.Floor(t.Weight * v.EffectiveLimit / weights), true
}

// bindsText is what denies, or will be the first to, and when it gives way.
func (e *explanation) bindsText() string {
	switch {
	case e.Binds == "":
		return ""
	case e.Guard != nil && e.fenced():
		return e.Binds + ", until the server reaches the others again"
	case e.Guard != nil && e.Verdict == verdictDenied:
		return e.Binds + ", until a slot is given back"
	case e.Guard != nil:
		text := fmt.Sprintf("%s after %d more at once", e.Binds, max(0, e.ceiling()-e.Guard.InFlight))
		if lanes := e.lanes(); lanes != "" {
			text += "; what denied in this window: " + lanes
		}
		return text
	case e.Peek == nil:
		return e.Binds
	case e.Cost > e.Peek.Limit:
		return fmt.Sprintf("%s: cost %d can never be allowed", e.Binds, e.Cost)
	case e.Verdict == verdictDenied && e.FreesAt > 0:
		return fmt.Sprintf("%s now; it next has more %s", e.Binds, at(time.UnixMilli(e.FreesAt)))
	case e.Verdict == verdictDenied:
		return e.Binds + " now"
	}
	n := e.Peek.Remaining / e.Cost
	if e.Forecast != nil {
		n = e.Forecast.SpendableNow
	}
	text := fmt.Sprintf("%s after %s", e.Binds, count(int(n), "more request"))
	if e.FreesAt > nowMillis() {
		text += "; it next has more " + at(time.UnixMilli(e.FreesAt))
	}
	return text
}

// lanes are the axes that have denied requests of an admitter.
func (e *explanation) lanes() string {
	if e.Window == nil || e.Window.DeniedByLane == nil {
		return ""
	}
	by := e.Window.DeniedByLane
	var parts []string
	for _, lane := range []struct {
		name   string
		denied int64
	}{{"rate", by.Rate}, {"concurrency", by.Concurrency}, {"cost", by.Cost}, {"price", by.Policy}} {
		if lane.denied > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", lane.name, lane.denied))
		}
	}
	return strings.Join(parts, ", ")
}

func (e *explanation) windowText() string {
	w := e.Window
	if w == nil {
		return ""
	}
	text := fmt.Sprintf("%d allowed and %d denied by this policy", w.Allowed, w.Denied)
	if w.FailModeDecisions > 0 {
		text += fmt.Sprintf(", %d of them by the fail mode", w.FailModeDecisions)
	}
	if at := rank(w.TopDenied, e.Key); at >= 0 {
		text += fmt.Sprintf("; the key is no. %d of those denied (%d)", at+1, w.TopDenied[at].Count)
	} else if at := rank(w.TopRequested, e.Key); at >= 0 {
		text += fmt.Sprintf("; the key is no. %d of those asked for (%d)", at+1, w.TopRequested[at].Count)
	}
	return text
}

func rank(rows []monitor.KeyCount, key string) int {
	return slices.IndexFunc(rows, func(k monitor.KeyCount) bool { return k.Key == key })
}

func (e *explanation) deniedText() string {
	d := e.LastDenial
	if d == nil {
		return ""
	}
	text := time.UnixMilli(d.At).Format("2006-01-02 15:04:05 MST") + " by " + shown(cmp.Or(d.Lane, e.axis()))
	switch {
	case d.Decision.ResetAt > nowMillis():
		text += ", whole again " + at(time.UnixMilli(d.Decision.ResetAt))
	case d.Decision.RetryAfterMs > 0:
		text += ", told to retry in " + readable(time.Duration(d.Decision.RetryAfterMs)*time.Millisecond)
	}
	return text
}
