package e2e

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/throttlekit/throttlekit-go/server/dashboard"
)

var (
	screens   = flag.String("screens", "", "folder to write pictures of the page to, for the documentation; none is written without it")
	screenFor = flag.Duration("screens-after", 2*time.Minute, "how long the page has watched by then")
)

// TestScreens writes the pictures of docs/dashboard.md.
func TestScreens(t *testing.T) {
	if *screens == "" {
		t.Skip("writes pictures when asked to: go test -run Screens -screens ../../../docs/img")
	}
	_, tab := busy(t, dashboard.Config{})
	select {
	case <-time.After(*screenFor):
	case <-t.Context().Done():
	}
	shoot := func(name string) {
		tab.until(`document.querySelector('#status').dataset.state === 'live'`)
		ctx, cancel := context.WithTimeout(tab.ctx, patience)
		defer cancel()
		picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		must(t, err)
		must(t, os.WriteFile(filepath.Join(*screens, name+".png"), picture, 0o600))
		t.Logf("%s: %d kB", name, len(picture)/1000)
	}
	show := func(view, scheme string, width, height int64, density float64) {
		tab.prefer(scheme)
		tab.size(width, height, density)
		tab.click("#tab-" + view)
		shown := get[string](tab, "document.querySelector('#facts').textContent")
		tab.until("document.querySelector('#facts').textContent !== " + quote(shown)) // drawn at this size
	}
	show("overview", "light", 1280, 1640, 1)
	shoot("dashboard-light")
	show("overview", "dark", 1280, 1640, 1)
	shoot("dashboard-dark")
	show("overview", "light", 360, 1100, 2)
	shoot("dashboard-phone")
	for _, view := range views[1:] {
		show(view, "light", 1280, 1180, 1)
		shoot("dashboard-" + view)
	}
}
