package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long a page may take to become what a test waits for. It is no promise: machines that test are busy.
const patience = 30 * time.Second

// elsewhere is a name that leads to this machine and, unlike localhost, is not trusted by browsers.
const elsewhere = "dash.test"

// flags start a browser without a window that asks for nothing by itself.
var flags = sync.OnceValues(func() ([]chromedp.ExecAllocatorOption, error) {
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		return nil, errors.New("chromium is not installed; apt-get install chromium, or run tools/setup.sh")
	}
	list := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program), chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("host-resolver-rules", "MAP "+elsewhere+" 127.0.0.1"),
		chromedp.WSURLReadTimeout(patience), chromedp.WindowSize(1280, 900),
	}
	if os.Getuid() == 0 {
		list = append(list, chromedp.NoSandbox)
	}
	return list, nil
})

// tab is a page in a browser of its own, which notes everything that the page complains of.
type tab struct {
	tb  testing.TB
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// browse opens a browser. When the test ends, the page must not have complained of anything but what forgiven matches.
func browse(tb testing.TB, forgiven ...string) *tab {
	tb.Helper()
	list, err := flags()
	must(tb, err)
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(tb.Context()), list...)
	ctx, cancel := chromedp.NewContext(allocator)
	t := &tab{tb: tb, ctx: ctx}
	t.listen(func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			t.complain("exception: " + e.ExceptionDetails.Text + " " + described(e.ExceptionDetails.Exception))
		case *runtime.EventConsoleAPICalled:
			if slices.Contains([]runtime.ConsoleAPICalledType{
				runtime.ConsoleAPICalledTypeError, runtime.ConsoleAPICalledTypeWarning, runtime.ConsoleAPICalledTypeAssert,
			}, e.Type) {
				t.complain(fmt.Sprintf("console: %s %s", e.Type, described(e.Args...)))
			}
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				t.complain(fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
			}
		}
	})
	tb.Cleanup(func() {
		cancel()
		stop()
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, complaint := range t.complaints {
			if !matches(complaint, forgiven) {
				tb.Errorf("the page complained: %s", complaint)
			}
		}
	})
	return t
}

func matches(complaint string, forgiven []string) bool {
	for _, f := range forgiven {
		if strings.Contains(complaint, f) {
			return true
		}
	}
	return false
}

func (t *tab) complain(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.complaints = append(t.complaints, what)
}

// listen has f told what happens in the browser.
func (t *tab) listen(f func(event any)) {
	t.tb.Helper()
	if err := chromedp.Listen(t.ctx, f); err != nil {
		t.tb.Fatal(err)
	}
}

// step is something that a browser does.
type step = chromedp.Action[chromedp.Void]

// do runs steps.
func (t *tab) do(steps ...step) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.tb.Fatal(err)
	}
}

// click clicks what a selector finds.
func (t *tab) click(selector string) {
	t.tb.Helper()
	t.do(chromedp.Click(chromedp.CSS(selector)))
}

// enter types a line into what a selector finds.
func (t *tab) enter(selector, line string) {
	t.tb.Helper()
	t.do(chromedp.SendKeys(chromedp.CSS(selector), line+kb.Enter))
}

// command sends a command of the DevTools protocol.
func command[P, R any](t *tab, cmd cdp.Command[P, R], params P) R {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, cmd, params)
	if err != nil {
		t.tb.Fatal(err)
	}
	return result
}

// prefer sets the system's colour scheme.
func (t *tab) prefer(scheme string) {
	t.tb.Helper()
	command(t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// size sets that of the screen, in pixels of CSS.
func (t *tab) size(width, height int64, density float64) {
	t.tb.Helper()
	command(t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: density, Mobile: density > 1,
	})
}

// open goes to a page.
func (t *tab) open(url string) {
	t.tb.Helper()
	t.do(chromedp.Navigate(url))
}

// get is the value of an expression in the page.
func get[T any](t *tab, expression string) T {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.tb.Fatalf("%v in %s", err, expression)
	}
	return value
}

// until waits for an expression in the page to become true.
func (t *tab) until(expression string) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		// A page that is just being replaced cannot answer; the next one will.
		if is, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")")); err == nil && is {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.tb.Fatalf("waited in vain for %s", expression)
		}
	}
}

// live waits for a page to have figures.
func (t *tab) live() {
	t.tb.Helper()
	t.until(`document.querySelector('#status')?.dataset.state === 'live' && document.querySelector('[role=tabpanel]:not([hidden]) td')`)
}

// shows waits for an element to contain a text.
func (t *tab) shows(selector, text string) {
	t.tb.Helper()
	t.until(fmt.Sprintf("document.querySelector(%s)?.textContent.includes(%s)", quote(selector), quote(text)))
}

// quote is a text as JavaScript spells it.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""`
	}
	return string(b)
}

// described is what the console would show.
func described(objects ...*runtime.RemoteObject) string {
	var b strings.Builder
	for _, o := range objects {
		if o != nil {
			fmt.Fprintf(&b, "%s %s ", o.Description, o.Value)
		}
	}
	return b.String()
}
