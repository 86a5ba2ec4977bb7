package monitor

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// unusedSeries are those that the dashboard leaves out on purpose.
var unusedSeries = map[string]string{
	"throttlekit_top_key_requests": "only there if asked for, and shows keys",
	"throttlekit_top_key_denials":  "only there if asked for, and shows keys",
}

// grafanaPanel is as much of a panel as is looked at.
type grafanaPanel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		Expr, RefID string
	}
}

// The dashboard for Grafana shows series that there are, by labels that they have, and leaves none out by mistake.
func TestGrafanaDashboard(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/grafana/throttlekit.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title      string
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []grafanaPanel
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	var variables, exprs, rows []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name)
		if v.Definition != "" {
			exprs = append(exprs, v.Definition)
		}
	}
	if want := []string{"datasource", "instance", "policy", "guard"}; !slices.Equal(variables, want) {
		t.Errorf("variables %v, want %v", variables, want)
	}
	ids := make(map[int]bool)
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d, %q, is out of place", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	if want := []string{"Overview", "Latency", "Guards", "Leases", "Shares", "Store", "Fail mode", "Servers"}; !slices.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
	for _, name := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(string(raw), -1) {
		if !slices.Contains(append(variables, "__rate_interval", "__all"), name[1]) {
			t.Errorf("there is no variable $%s", name[1])
		}
	}

	labels := seriesLabels(t)
	used := make(map[string]bool)
	for _, expr := range exprs {
		for _, problem := range checkExpr(expr, labels, used) {
			t.Errorf("%s in %s", problem, expr)
		}
	}
	for name := range labels {
		if _, left := unusedSeries[name]; used[name] == left {
			t.Errorf("%s: used %v, left out on purpose %v", name, used[name], left)
		}
	}
	for name := range unusedSeries {
		if labels[name] == nil {
			t.Errorf("%s is no series", name)
		}
	}
}

// The check finds what it is for.
func TestGrafanaCheckFinds(t *testing.T) {
	t.Parallel()
	labels := seriesLabels(t)
	for expr, want := range map[string]string{
		"throttlekit_allowed":                                             "no series throttlekit_allowed",
		"throttlekit_allowed_total_bucket":                                "no series throttlekit_allowed_total_bucket",
		"throttlekit_store_operation_duration_seconds":                    "no series throttlekit_store_operation_duration_seconds",
		`throttlekit_watchers{policy=~"$policy"}`:                         "no label policy of throttlekit_watchers",
		`sum by (guard) (throttlekit_limit)`:                              "no label guard",
		`sum by (policy, axis) (throttlekit_denied_by_axis_total{x="y"})`: "no label x of throttlekit_denied_by_axis_total",
		`label_values(throttlekit_guard_limit, policy)`:                   "no label policy",
		`sum(rate(throttlekit_allowed_total[5m]`:                          "unbalanced",
	} {
		if got := strings.Join(checkExpr(expr, labels, make(map[string]bool)), "; "); got != want {
			t.Errorf("%s: got %q, want %q", expr, got, want)
		}
	}
}

// seriesLabels are the labels of every series that there is, by name.
func seriesLabels(tb testing.TB) map[string][]string {
	tb.Helper()
	described := make(chan *prometheus.Desc, 1000)
	metricsOf(tb, hubAt(tb, newClock(), Config{}), MetricsConfig{}).Describe(described)
	close(described)
	form := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: \{([^}]*)\}`)
	labels := make(map[string][]string)
	for d := range described {
		m := form.FindStringSubmatch(d.String())
		if m == nil {
			tb.Fatalf("%s has no name", d)
		}
		labels[m[1]] = append(strings.Split(m[2], ","), "instance", "job")
	}
	return labels
}

var (
	seriesInExpr  = regexp.MustCompile(`\b(throttlekit_\w+)(?:\{([^}]*)\})?`)
	matcherInExpr = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	groupInExpr   = regexp.MustCompile(`\bby \(([^)]*)\)|label_values\(.*,\s*(\w+)\)`)
	histogramOf   = regexp.MustCompile(`^(throttlekit_\w+_seconds)_(bucket|sum|count)$`)
)

// checkExpr says what is wrong with an expression, and notes the series in it.
func checkExpr(expr string, labels map[string][]string, used map[string]bool) (problems []string) {
	if strings.Count(expr, "(") != strings.Count(expr, ")") {
		problems = append(problems, "unbalanced")
	}
	var has []string
	for _, m := range seriesInExpr.FindAllStringSubmatch(expr, -1) {
		name := m[1]
		of := labels[name]
		if h := histogramOf.FindStringSubmatch(name); h != nil {
			name, of = h[1], slices.Concat(labels[h[1]], []string{"le"})
		} else if strings.HasSuffix(name, "_seconds") {
			of = nil // a histogram has no series of its name
		}
		if of == nil {
			return append(problems, "no series "+name)
		}
		used[name] = true
		has = append(has, of...)
		for _, label := range matcherInExpr.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(of, label[1]) {
				problems = append(problems, "no label "+label[1]+" of "+name)
			}
		}
	}
	for _, m := range groupInExpr.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(m[1]+m[2], ",") {
			if !slices.Contains(has, strings.TrimSpace(label)) {
				problems = append(problems, "no label "+strings.TrimSpace(label))
			}
		}
	}
	return problems
}
