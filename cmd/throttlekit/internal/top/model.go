package top

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"github.com/throttlekit/throttlekit-go/server/monitor"
)

// Source is where snapshots and denials come from.
type Source interface {
	// Snapshot is what the server knows now.
	Snapshot(ctx context.Context) (monitor.Snapshot, error)
	// Watch hands over denials as they happen, and returns once ctx or the stream ends. tell may be called in any goroutine.
	Watch(ctx context.Context, tell func(monitor.Denial)) error
}

// Config says what a dashboard shows.
type Config struct {
	Source Source
	// Interval is the time between snapshots.
	Interval time.Duration
	// View is the first one.
	View View
	// ASCII avoids all other characters, and Plain all colours.
	ASCII, Plain bool
	// Location is the time zone that times are shown in. nil means that of the machine.
	Location *time.Location
	// Explain words why there is no snapshot.
	Explain func(error) string
}

// Model is the dashboard as a program of Bubble Tea.
type Model struct {
	config  Config
	ctx     context.Context //nolint:containedctx // commands outlive the call that made them, and end with the program
	frame   Frame
	history History
}

// NewModel shows a first snapshot, and goes on for as long as ctx lasts.
func NewModel(ctx context.Context, config Config, first *monitor.Snapshot) *Model {
	m := &Model{config: config, ctx: ctx}
	m.frame = Frame{View: config.View, History: &m.history, ASCII: config.ASCII, Location: config.Location, Cols: 80, Rows: 24}
	m.theme(true)
	m.take(first)
	return m
}

func (m *Model) theme(dark bool) {
	if !m.config.Plain {
		m.frame.Theme = NewTheme(dark)
	}
}

// take makes a snapshot the current one.
func (m *Model) take(s *monitor.Snapshot) {
	m.history.Add(s)
	m.keepPlace(s.RecentDenials)
	m.frame.Snapshot, m.frame.Trouble = s, ""
}

// keepPlace goes on showing the denials that a reader has scrolled to, although new ones have come.
func (m *Model) keepPlace(next []monitor.Denial) {
	if m.frame.View != Overview || m.frame.Offset == 0 || m.frame.Snapshot == nil {
		return
	}
	old := m.frame.Snapshot.RecentDenials
	if len(old) == 0 {
		return
	}
	for i, d := range slices.Backward(next) {
		if same(d, old[len(old)-1]) {
			m.frame.Offset += len(next) - 1 - i
			return
		}
	}
}

type (
	// asked is the answer to a question for a snapshot.
	asked struct {
		snapshot monitor.Snapshot
		err      error
	}
	// due says that it is time for the next one.
	due struct{}
	// denials have just happened.
	denials []monitor.Denial
)

// Init implements [tea.Model].
func (m *Model) Init() tea.Cmd { return tea.Batch(tea.RequestBackgroundColor, m.later()) }

func (m *Model) later() tea.Cmd {
	return tea.Tick(m.config.Interval, func(time.Time) tea.Msg { return due{} })
}

func (m *Model) ask() tea.Msg {
	s, err := m.config.Source.Snapshot(m.ctx)
	return asked{s, err}
}

// Update implements [tea.Model].
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.frame.Cols, m.frame.Rows = msg.Width, msg.Height
	case tea.BackgroundColorMsg:
		m.theme(msg.IsDark())
	case tea.ColorProfileMsg:
		if msg.Profile < colorprofile.ANSI {
			m.config.Plain, m.frame.Theme = true, Theme{}
		}
	case due:
		return m, m.ask
	case asked:
		m.answered(msg)
		next := m.later()
		return m, next
	case denials:
		m.denied(msg)
	case tea.KeyPressMsg:
		cmd := m.pressed(msg.String())
		return m, cmd
	}
	return m, nil
}

// answered takes a snapshot, or says why there is none. While the screen is paused it stays as it is, but for that.
func (m *Model) answered(a asked) {
	switch {
	case a.err != nil:
		m.frame.Trouble = m.config.Explain(a.err)
	case m.frame.Paused:
		m.frame.Trouble = ""
	default:
		m.take(&a.snapshot)
	}
}

// mostDenials is how many the feed has, as many as snapshots do.
const mostDenials = 200

// denied adds to the feed what the next snapshot will have, too.
func (m *Model) denied(list denials) {
	if m.frame.Paused || m.frame.Trouble != "" || m.frame.Snapshot == nil {
		return
	}
	next := *m.frame.Snapshot
	feed := slices.Clone(next.RecentDenials)
	for _, d := range list {
		if !slices.ContainsFunc(feed, func(known monitor.Denial) bool { return same(known, d) }) {
			feed = append(feed, d)
		}
	}
	next.RecentDenials = feed[max(0, len(feed)-mostDenials):]
	m.keepPlace(next.RecentDenials)
	m.frame.Snapshot = &next
}

// same reports whether two denials are one, of which a stream tells less than a snapshot.
func same(a, b monitor.Denial) bool { return a.At == b.At && a.Policy == b.Policy && a.Key == b.Key }

// pressed does what a key stands for.
func (m *Model) pressed(key string) tea.Cmd {
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "?", "h":
		m.frame.Help, m.frame.Offset = !m.frame.Help, 0
	case "esc":
		if m.frame.Help {
			m.frame.Help, m.frame.Offset = false, 0
		}
	case "p", "space":
		m.frame.Paused = !m.frame.Paused
	case "1", "2", "3", "4", "5", "6", "7":
		m.show(View(key[0] - '1'))
	case "tab", "right":
		m.show((m.frame.View + 1) % views)
	case "shift+tab", "left":
		m.show((m.frame.View + views - 1) % views)
	case "up", "k":
		m.scroll(-1)
	case "down", "j":
		m.scroll(1)
	case "pgup":
		m.scroll(-10)
	case "pgdown":
		m.scroll(10)
	case "g", "home":
		m.scroll(-math.MaxInt32)
	case "G", "end":
		m.scroll(math.MaxInt32)
	}
	return nil
}

// show turns to a view. Turning to the current one does not lose the place in it.
func (m *Model) show(v View) {
	if v != m.frame.View || m.frame.Help {
		m.frame.View, m.frame.Help, m.frame.Offset = v, false, 0
	}
}

// scroll moves down by a number of lines. In Overview, whose newest denial is at the top, up leads to older ones.
func (m *Model) scroll(lines int) {
	if m.frame.View == Overview && !m.frame.Help {
		lines = -lines
	}
	last := m.frame.lastOffset()
	m.frame.Offset = min(max(min(m.frame.Offset, last)+lines, 0), last)
}

// View implements [tea.Model].
func (m *Model) View() tea.View {
	v := tea.NewView(strings.Join(Render(m.frame), "\n"))
	v.AltScreen = true
	v.WindowTitle = "throttlekit top"
	return v
}

// Run shows the dashboard until the user quits or ctx ends.
func Run(ctx context.Context, config Config, first *monitor.Snapshot, opts ...tea.ProgramOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	program := tea.NewProgram(NewModel(ctx, config, first), append(opts, tea.WithContext(ctx))...)
	feed := make(chan monitor.Denial, mostDenials)
	var running sync.WaitGroup
	running.Go(func() { watch(ctx, config, feed) })
	running.Go(func() {
		for list := gather(ctx, feed); list != nil; list = gather(ctx, feed) {
			program.Send(list)
		}
	})
	_, err := program.Run()
	cancel()
	running.Wait()
	return err
}

// watch follows denials for as long as ctx lasts, whatever becomes of the server.
func watch(ctx context.Context, config Config, feed chan<- monitor.Denial) {
	for ctx.Err() == nil {
		// Snapshots have the same denials, a little later, and say what is wrong: so nothing is lost by what is left out here.
		_ = config.Source.Watch(ctx, func(d monitor.Denial) {
			select {
			case feed <- d:
			default:
			}
		})
		again := time.NewTimer(config.Interval)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}

// together is the time within which denials are shown together: the screen is not drawn for each of them.
const together = 100 * time.Millisecond

// gather is what comes within that time of the first denial, or nil once ctx has ended.
func gather(ctx context.Context, feed <-chan monitor.Denial) denials {
	var list denials
	select {
	case d := <-feed:
		list = append(list, d)
	case <-ctx.Done():
		return nil
	}
	enough := time.NewTimer(together)
	defer enough.Stop()
	for {
		select {
		case d := <-feed:
			list = append(list, d)
		case <-enough.C:
			return list
		case <-ctx.Done():
			return nil
		}
	}
}
