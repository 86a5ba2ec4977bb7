package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/throttlekit/throttlekit-go/client"
	"github.com/throttlekit/throttlekit-go/cmd/throttlekit/internal/top"
)

// looking is what the flags of top say.
type looking struct {
	once, json bool
	interval   span
	view       word
	from       watching
}

func newTop() *cobra.Command {
	l := &looking{interval: span(time.Second)}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a server: what it decides, why it denies, and who is behind it",
		Long: `Top shows, live, what a server decides: throughput and denials, what denies, whose requests those are, latencies, the
shares of tenants, guards, budgets and leases. It only watches. The server has to have its Monitor door, which it opens to
callers on its own machine, or to those with its monitor secret.

Keys: 1 to 7 or Tab for the views, arrows and PgUp, PgDn, g, G to scroll, p to pause, ? for help, q to quit.

With --once it prints one snapshot as text, all views of it, and with --json the document that the server made. A
terminal that can only print (TERM=dumb) gets the former. NO_COLOR turns colours off.

Exit codes: 0 done, 1 no answer, 2 wrong usage, no terminal, or a server that does not let itself be watched.`,
		Example: "  throttlekit top\n  throttlekit top --addr 10.0.0.7:50051 --tls --view guards\n" +
			"  throttlekit top --json | jq .guards",
		Args:              takes(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              l.run,
	}
	f := cmd.Flags()
	f.BoolVar(&l.once, "once", false, "print one snapshot as text and end")
	f.BoolVar(&l.json, "json", false, "print one snapshot as JSON and end")
	f.Var(&l.interval, "interval", "time between snapshots, at least 100ms")
	choice(cmd, &l.view, "view", "", "what to show first", top.Views()...)
	l.from.define(cmd)
	return cmd
}

func (l *looking) run(cmd *cobra.Command, _ []string) error {
	if time.Duration(l.interval) < 100*time.Millisecond {
		return wrong("--interval must be at least 100ms, got %v", time.Duration(l.interval))
	}
	if err := l.from.settle(cmd); err != nil {
		return err
	}
	out, _ := cmd.OutOrStdout().(*os.File)
	terminal := out != nil && term.IsTerminal(out.Fd())
	printed := l.once || l.json || (terminal && os.Getenv("TERM") == "dumb")
	if !terminal && !printed {
		return wrong("standard output is no terminal; --once prints a snapshot as text, --json as JSON")
	}
	to, err := l.from.dial()
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }() // it only watched
	if printed {
		width := 100
		if terminal {
			if w, _, err := term.GetSize(out.Fd()); err == nil && w > 0 {
				width = w
			}
		}
		return l.print(cmd, to, width)
	}
	return l.show(cmd.Context(), to)
}

// print is one snapshot, for pipes.
func (l *looking) print(cmd *cobra.Command, to *client.Client, width int) error {
	from, err := l.from.source(to)
	if err != nil {
		return err
	}
	if l.json {
		text, err := from.document(cmd.Context())
		if err != nil {
			return l.from.explainWatch(err)
		}
		_, err = cmd.OutOrStdout().Write(append([]byte(text), '\n'))
		return err
	}
	snapshot, err := from.Snapshot(cmd.Context())
	if err != nil {
		return l.from.explainWatch(err)
	}
	var history top.History
	history.Add(&snapshot)
	text := top.Text(top.Frame{Snapshot: &snapshot, History: &history, Cols: width, ASCII: !speaksUTF8()})
	_, err = cmd.OutOrStdout().Write([]byte(text))
	return err
}

// show runs the dashboard. A server that is not there, or does not let itself be watched, is an error now; later it is what
// the dashboard says.
func (l *looking) show(ctx context.Context, to *client.Client) error {
	from, err := l.from.source(to)
	if err != nil {
		return err
	}
	first, err := from.Snapshot(ctx)
	if err != nil {
		return l.from.explainWatch(err)
	}
	err = top.Run(ctx, top.Config{
		Source: from, Interval: time.Duration(l.interval), View: top.View(slices.Index(l.view.words, l.view.value)),
		ASCII: !speaksUTF8(), Plain: os.Getenv("NO_COLOR") != "",
		Explain: func(err error) string { return message(l.from.explainWatch(err).Error()) },
	}, &first)
	if errors.Is(err, tea.ErrInterrupted) {
		return nil // a signal, which quits as the key does
	}
	return err
}

// speaksUTF8 tells from the locale whether a terminal shows more than ASCII.
func speaksUTF8() bool {
	locale := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	if locale == "" {
		return runtime.GOOS == "windows" || runtime.GOOS == "darwin"
	}
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}
