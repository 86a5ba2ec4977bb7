package top

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"go.uber.org/goleak"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a source that a test holds the strings of.
type scripted struct {
	asked   atomic.Int64
	watched atomic.Int64
	answer  func() (monitor.Snapshot, error)
}

func (s *scripted) Snapshot(context.Context) (monitor.Snapshot, error) {
	s.asked.Add(1)
	return s.answer()
}

func (s *scripted) Watch(ctx context.Context, tell func(monitor.Denial)) error {
	if s.watched.Add(1) == 1 {
		return errors.New("the stream broke")
	}
	tell(monitor.Denial{At: noon + 1, Policy: "api", Key: "from the stream"})
	<-ctx.Done()
	return ctx.Err()
}

// modelOf shows the sample.
func modelOf(t *testing.T) *Model {
	t.Helper()
	source := &scripted{answer: func() (monitor.Snapshot, error) { return *sample(), nil }}
	m := NewModel(t.Context(), Config{
		Source: source, Interval: time.Second, Plain: true, Location: time.UTC, Explain: func(err error) string { return err.Error() },
	}, sample())
	return m
}

// press sends keys, spelled as people do.
func press(m *Model, keys ...string) (cmd tea.Cmd) {
	named := map[string]tea.KeyPressMsg{
		"tab": {Code: tea.KeyTab}, "shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
		"pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "esc": {Code: tea.KeyEscape},
		"left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight},
	}
	for _, key := range keys {
		msg, ok := named[key]
		if !ok {
			msg = tea.KeyPressMsg{Code: rune(key[0]), Text: key}
		}
		_, cmd = m.Update(msg)
	}
	return cmd
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		keys   string
		view   View
		offset int
	}{
		{"", Overview, 0},
		{"1", Overview, 0},
		{"2", Latency, 0},
		{"7", Leases, 0},
		{"8", Overview, 0},
		{"tab", Latency, 0},
		{"tab,tab", Fairness, 0},
		{"shift+tab", Leases, 0},
		{"7,tab", Overview, 0},
		{"right,right,left", Latency, 0},
		{"up", Overview, 1}, // to older denials
		{"up,up,down", Overview, 1},
		{"down", Overview, 0}, // there is none newer
		{"pgup", Overview, 10},
		{"pgup,pgup,pgdown", Overview, 10},
		{"g", Overview, 30}, // 40 denials, 10 in sight
		{"g,up", Overview, 30},
		{"g,G", Overview, 0},
		{"up,1", Overview, 1},   // the current view once more keeps the place
		{"up,2,1", Overview, 0}, // another one does not
		{"up,?", Overview, 0},
		{"?,3", Fairness, 0},
	} {
		m := modelOf(t)
		press(m, strings.FieldsFunc(test.keys, func(r rune) bool { return r == ',' })...)
		if m.frame.View != test.view || m.frame.Offset != test.offset {
			t.Errorf("%q: at %v, %d; want %v, %d", test.keys, m.frame.View, m.frame.Offset, test.view, test.offset)
		}
	}
	for _, key := range []string{"q", "ctrl+c"} {
		cmd := press(modelOf(t), key)
		if cmd == nil {
			t.Fatalf("%s does nothing", key)
		}
		if _, quits := cmd().(tea.QuitMsg); !quits {
			t.Errorf("%s does not quit", key)
		}
	}
	m := modelOf(t)
	if press(m, "?"); !m.frame.Help {
		t.Error("? shows no help")
	}
	if press(m, "esc"); m.frame.Help {
		t.Error("esc does not end the help")
	}
}

// In lists whose first line is at the top, up is up.
func TestScrollTables(t *testing.T) {
	t.Parallel()
	m := modelOf(t)
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 8})
	for _, test := range []struct {
		key  string
		want int
	}{{"up", 0}, {"down", 1}, {"down", 2}, {"up", 1}, {"G", 4}, {"down", 4}, {"g", 0}, {"pgdown", 4}, {"pgup", 0}} {
		if press(m, "2", test.key); m.frame.Offset != test.want {
			t.Fatalf("%s: at %d, want %d", test.key, m.frame.Offset, test.want)
		}
	}
}

func screen(m *Model) string { return m.View().Content }

func TestPause(t *testing.T) {
	t.Parallel()
	m := modelOf(t)
	press(m, "p")
	before := screen(m)
	if !strings.Contains(before, "PAUSED") {
		t.Error("the screen does not say that it is paused")
	}
	later := sample()
	later.Meta.GeneratedAt += 1000
	later.Policies[0].Analytics.Denied += 500
	m.Update(asked{snapshot: *later})
	m.Update(denials{{At: noon + 1, Policy: "api", Key: "new"}})
	if screen(m) != before {
		t.Error("a paused screen has changed")
	}
	press(m, "p")
	m.Update(asked{snapshot: *later})
	if after := screen(m); after == before || strings.Contains(after, "PAUSED") {
		t.Error("the screen does not go on")
	}
}

// A server that is away leaves the last snapshot on the screen, and comes back by itself.
func TestReconnects(t *testing.T) {
	t.Parallel()
	m := modelOf(t)
	_, cmd := m.Update(asked{err: errors.New("nobody there")})
	if s := screen(m); !strings.Contains(s, "reconnecting: nobody there") || !strings.Contains(s, "mallory") {
		t.Errorf("got\n%s", s)
	}
	if cmd == nil {
		t.Fatal("it does not ask again")
	}
	if _, cmd = m.Update(due{}); cmd == nil {
		t.Fatal("it does not ask when it is due")
	}
	answer, ok := cmd().(asked)
	if !ok || answer.err != nil {
		t.Fatalf("got %v", answer)
	}
	m.Update(answer)
	if s := screen(m); strings.Contains(s, "econnecting") {
		t.Errorf("got\n%s", s)
	}
}

// Denials are on the screen before the next snapshot, each once.
func TestDenials(t *testing.T) {
	t.Parallel()
	m := modelOf(t)
	fresh := monitor.Denial{At: noon + 1, Policy: "api", Key: "fresh"}
	m.Update(denials{fresh, fresh, sample().RecentDenials[39]})
	if got := strings.Count(screen(m), "fresh"); got != 1 || len(m.frame.Snapshot.RecentDenials) != 41 {
		t.Errorf("shown %d times, among %d", got, len(m.frame.Snapshot.RecentDenials))
	}
	// Who reads older ones goes on reading them.
	press(m, "up", "up")
	reading := strings.Split(screen(m), "\n")[13]
	m.Update(denials{{At: noon + 2, Policy: "api", Key: "fresher"}})
	next := sample()
	next.Meta.GeneratedAt += 1000
	next.RecentDenials = append(next.RecentDenials[1:], fresh, monitor.Denial{At: noon + 2, Policy: "api", Key: "fresher"}, monitor.Denial{At: noon + 3})
	m.Update(asked{snapshot: *next})
	if got := strings.Split(screen(m), "\n")[13]; got != reading {
		t.Errorf("got  %s\nwant %s", got, reading)
	}
	many := make(denials, 1000)
	for i := range many {
		many[i] = monitor.Denial{At: noon + int64(i) + 10}
	}
	m.Update(many)
	if n := len(m.frame.Snapshot.RecentDenials); n != mostDenials {
		t.Errorf("%d are kept", n)
	}
	if len(sample().RecentDenials) != 40 {
		t.Error("the snapshot was changed")
	}
}

func TestColours(t *testing.T) {
	t.Parallel()
	m := modelOf(t)
	m.config.Plain = false
	m.Update(tea.BackgroundColorMsg{})
	dark := screen(m)
	m.theme(false)
	light := screen(m)
	if !strings.Contains(dark, "\x1b[") || dark == light {
		t.Error("no colours, or the same on both backgrounds")
	}
	m.Update(tea.ColorProfileMsg{Profile: colorprofile.Ascii})
	if s := screen(m); strings.Contains(s, "\x1b") || !strings.Contains(s, "‹1 Overview›") {
		t.Errorf("a terminal without colours gets\n%s", s)
	}
	m.Update(tea.BackgroundColorMsg{})
	if strings.Contains(screen(m), "\x1b") {
		t.Error("the colours came back")
	}
}

// The whole program, on a terminal made of two streams: it asks again and again, follows denials although the stream breaks,
// and ends without leaving anything behind.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	keys, typing := io.Pipe()
	source := new(scripted)
	var quit sync.Once
	source.answer = func() (monitor.Snapshot, error) {
		if source.asked.Load() > 3 && source.watched.Load() > 1 {
			quit.Do(func() {
				_, _ = typing.Write([]byte("q"))
				_ = typing.Close()
			})
		}
		s := sample()
		s.Meta.GeneratedAt += source.asked.Load()
		return *s, nil
	}
	var out strings.Builder
	err := Run(ctx, Config{
		Source: source, Interval: 10 * time.Millisecond, Plain: true, Location: time.UTC, Explain: func(err error) string { return err.Error() },
	}, sample(), tea.WithInput(keys), tea.WithOutput(&out), tea.WithWindowSize(80, 24), tea.WithEnvironment([]string{"TERM=xterm"}))
	if err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "ThrottleKit") || !strings.Contains(s, "\x1b[?1049h") || !strings.Contains(s, "\x1b[?1049l") {
		t.Errorf("got %q", s)
	}
}

// It also ends with its context.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	source := &scripted{answer: func() (monitor.Snapshot, error) {
		cancel()
		return monitor.Snapshot{}, ctx.Err()
	}}
	err := Run(ctx, Config{Source: source, Interval: 10 * time.Millisecond, Explain: func(err error) string { return err.Error() }},
		sample(), tea.WithInput(strings.NewReader("")), tea.WithOutput(io.Discard), tea.WithWindowSize(80, 24))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What is not true any more is grey, but for what is wrong and the view that is shown.
func TestGrey(t *testing.T) {
	t.Parallel()
	theme := NewTheme(true)
	grey := theme.grey()
	for s := range styles {
		switch s {
		case bad:
			if grey.codes[s] != theme.codes[s] {
				t.Errorf("trouble is %q", grey.codes[s])
			}
		case chosen:
			if grey.codes[s] == grey.codes[faint] || grey.codes[s] == theme.codes[s] {
				t.Errorf("the name of the view is %q", grey.codes[s])
			}
		default:
			if grey.codes[s] != theme.codes[faint] {
				t.Errorf("style %d is %q", s, grey.codes[s])
			}
		}
	}
	if none := (Theme{}).grey(); none != (Theme{}) {
		t.Errorf("plain text is %q", none.codes)
	}
}
