package e2e

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/throttlekit/throttlekit-go/server/dashboard"
)

var views = []string{"overview", "latency", "fairness", "capacity", "guards", "budgets", "leases"}

// busy is a rig under load, with a page that shows it.
func busy(t *testing.T, config dashboard.Config) (*rig, *tab) {
	t.Helper()
	r := start(t, "127.0.0.1:0", config)
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		r.load(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-loaded
	})
	page := browse(t)
	page.open(r.url)
	page.live()
	return r, page
}

func TestShowsEveryView(t *testing.T) {
	_, page := busy(t, dashboard.Config{Interval: 200 * time.Millisecond})
	page.shows("#node", "10.0.0.7:50051")
	page.shows("#facts", "memory")
	// Each view with something that only its own figures can say.
	for view, script := range map[string]string{
		"overview": `[...p.querySelectorAll('.tile strong')].every((e) => !e.textContent.startsWith('–')) && p.querySelector('.chart path.red')
			&& p.textContent.includes('What binds') && p.querySelectorAll('#feed tr').length > 5`,
		"latency": `p.querySelector('.chart path.calm') && p.textContent.includes('µs') && p.querySelectorAll('tbody tr').length >= 6`,
		"fairness": `p.textContent.includes('acme') && p.querySelector('.tick')
			&& /[1-9][\d.]*\/s/.test(p.querySelector('[data-label=Burn]').textContent)`,
		"capacity": `p.textContent.includes('203.0.113.') && p.textContent.includes('admits, see Guards')`,
		"guards":   `p.querySelectorAll('.chart path.calm.area').length === 2 && /In flight[1-9]/.test(p.textContent)`,
		"budgets":  `p.querySelector('.chart path.calm.area') && p.textContent.includes('50k')`,
		"leases":   `p.textContent.includes('edge') && /fleetfederated[1-9]/.test(p.textContent)`,
	} {
		page.click("#tab-" + view)
		page.until("(p => " + script + ")(document.querySelector('#view-" + view + "'))")
	}
	// Figures move by themselves.
	page.click("#tab-overview")
	rows := `document.querySelector('#view-overview [aria-label=Policies]').textContent`
	before := get[string](page, rows)
	page.until(rows + " !== " + quote(before))
	// The chart reads out what is under the pointer.
	x, y := get[float64](page, `document.querySelector('#view-overview .chart').getBoundingClientRect().right - 60`),
		get[float64](page, `document.querySelector('#view-overview .chart').getBoundingClientRect().top + 60`)
	page.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, x, y))
	page.until(`/^\d\d:\d\d:\d\d$/.test(document.querySelector('#view-overview .chart text.cursor')?.textContent)`)
}

func TestPoliciesVanish(t *testing.T) {
	r, page := busy(t, dashboard.Config{Interval: 200 * time.Millisecond})
	page.click("#tab-guards")
	page.until(`document.querySelectorAll('#view-guards .chart path').length > 0`)
	must(t, r.hub.Attach(build(t, "limiters: { last: { strategy: fixedWindow, limit: 1, period: 1m } }", r.hub)))
	page.until(`document.querySelector('#view-guards .empty').checkVisibility() && !document.querySelector('#view-guards .chart')`)
	for _, view := range views {
		page.click("#tab-" + view)
		page.until(`document.querySelector('#view-` + view + `').checkVisibility()`)
	}
	page.click("#tab-overview")
	page.shows("#view-overview [aria-label=Policies]", "last")
}

func TestDenialShows(t *testing.T) {
	r := start(t, "127.0.0.1:0", dashboard.Config{})
	page := browse(t)
	page.open(r.url)
	page.live()
	for i := range 5 {
		key := fmt.Sprintf("client-%d", i)
		began := time.Now()
		r.deny(key)
		page.shows("#feed", key)
		t.Logf("a denial showed after %v", time.Since(began).Round(time.Millisecond))
	}
	rows := get[int](page, `document.querySelectorAll('#feed tr').length`)
	if rows != 5 {
		t.Errorf("%d rows for 5 denials", rows)
	}
	// A page that comes later shows them as well, once each.
	page.open(r.url)
	page.live()
	page.shows("#feed", "client-0")
	if rows := get[int](page, `document.querySelectorAll('#feed tr').length`); rows != 5 {
		t.Errorf("%d rows after a reload", rows)
	}
}

func TestSurvivesRestart(t *testing.T) {
	r := start(t, "127.0.0.1:0", dashboard.Config{})
	page := browse(t, "net::ERR_") // while the server is away, the browser says so
	page.open(r.url)
	page.live()
	r.deny("before")
	page.shows("#feed", "before")
	get[bool](page, "window.same = true")

	r.stop()
	page.until(`document.querySelector('#status').dataset.state === 'away'`)
	page.until(`!document.querySelector('#away').hidden && document.querySelector('#main').classList.contains('stale')`)
	page.shows("#away", "last figures")
	page.shows("#feed", "before") // greyed, not gone

	again := start(t, r.addr, dashboard.Config{})
	page.live()
	again.deny("after")
	page.shows("#feed", "after")
	if !get[bool](page, `window.same === true && document.querySelector('#away').hidden &&
		!document.querySelector('#main').classList.contains('stale')`) {
		t.Error("the page was loaded anew, or still says that the server is away")
	}
}

func TestStrangersWriteText(t *testing.T) {
	r := start(t, "127.0.0.1:0", dashboard.Config{Interval: 200 * time.Millisecond})
	page := browse(t)
	page.open(r.url)
	page.live()
	for _, key := range []string{
		`<img src=x onerror="window.hurt=1">`, `</script><script>window.hurt=1</script>`, "line\none\x00two\x1b[31m\u202egnp.exe",
		strings.Repeat("<b>long</b>", 5900), `" onmouseover="window.hurt=1`, "\xff\xfe", "",
	} {
		r.deny(key)
	}
	page.shows("#feed", `<img src=x onerror="window.hurt=1">`)
	page.shows("#feed", `line\u000aone\u0000two\u001b[31m\u202egnp.exe`)
	page.shows("#feed", "(empty)")
	page.shows("#view-overview [aria-label='Top denied keys']", `</script><script>`)
	page.click("#tab-capacity")
	page.until(`document.querySelector('#view-capacity .key')`)
	if !get[bool](page, `window.hurt === undefined && !document.querySelector('main img, main script, main b:not(.legend b)')`) {
		t.Error("a key became markup")
	}
	longest := get[int](page, `Math.max(...[...document.querySelectorAll('.key')].map((e) => Math.max(e.textContent.length, e.title.length)))`)
	if longest > 210 {
		t.Errorf("a key shows %d characters", longest)
	}
}

func TestLogin(t *testing.T) {
	secret := "correct horse battery staple"
	r := start(t, "127.0.0.1:0", dashboard.Config{Secret: &secret})
	_, port, _ := strings.Cut(r.addr, ":")
	for _, origin := range []string{r.url, "http://" + elsewhere + ":" + port + "/"} {
		page := browse(t, "401 (Unauthorized)") // a wrong secret; the browser notes it
		var asked []string
		page.listen(func(event any) {
			if e, ok := event.(*network.EventRequestWillBeSent); ok {
				page.mu.Lock()
				asked = append(asked, e.Request.URL)
				page.mu.Unlock()
			}
		})
		command(page, network.Enable, network.EnableParams{})
		page.open(origin)
		page.until(`document.querySelector('#secret')`)
		if get[bool](page, `!!document.querySelector('#main')`) {
			t.Error("the page shows before the login")
		}

		page.enter("#secret", "wrong")
		page.shows("[role=alert]", "not the secret")
		page.enter("#secret", secret)
		page.live()
		if got := get[string](page, "document.cookie"); got != "" {
			t.Errorf("scripts can read %q", got)
		}
		if strings.Contains(get[string](page, "document.documentElement.outerHTML + location + JSON.stringify(localStorage)"), "horse") {
			t.Error("the secret is in the page")
		}
		page.mu.Lock()
		for _, u := range asked {
			if plain, err := url.QueryUnescape(u); err != nil || strings.Contains(plain, "horse") || strings.Contains(plain, "wrong") {
				t.Errorf("the secret is in %s", u)
			}
		}
		if len(asked) < 5 {
			t.Errorf("only %d requests were seen", len(asked))
		}
		page.mu.Unlock()

		page.click("#logout")
		page.until(`document.querySelector('#secret')`)
		page.open(origin)
		page.until(`document.querySelector('#secret')`)
	}
}

func TestSessionEndsWithTheServer(t *testing.T) {
	secret := "s3cret"
	r := start(t, "127.0.0.1:0", dashboard.Config{Secret: &secret})
	page := browse(t, "net::ERR_", "401 (Unauthorized)")
	page.open(r.url)
	page.enter("#secret", secret)
	page.live()
	r.stop()
	page.until(`document.querySelector('#status').dataset.state === 'away'`)
	start(t, r.addr, dashboard.Config{Secret: &secret})
	page.until(`document.querySelector('#secret')`) // the new server knows no session, so the page asks again
}

func TestKeyboard(t *testing.T) {
	_, page := busy(t, dashboard.Config{Interval: 200 * time.Millisecond})
	focused := func() string { return get[string](page, `document.activeElement.id`) }
	press := func(keys ...string) {
		for _, key := range keys {
			page.do(chromedp.KeyEvent(key))
		}
	}
	press(kb.Tab)
	if !get[bool](page, `document.activeElement.classList.contains('skip') && document.activeElement.getBoundingClientRect().top >= 0`) {
		t.Error("the first stop is not the link that skips to the figures, in sight")
	}
	for _, want := range []string{"pause", "theme", "tab-overview"} {
		press(kb.Tab)
		if got := focused(); got != want {
			t.Fatalf("tab leads to %q, not %q", got, want)
		}
		if get[string](page, `getComputedStyle(document.activeElement).outlineStyle`) == "none" {
			t.Errorf("%s shows no focus", want)
		}
	}
	for _, step := range []struct{ key, view string }{
		{kb.ArrowRight, "latency"},
		{kb.ArrowRight, "fairness"},
		{kb.End, "leases"},
		{kb.ArrowRight, "overview"},
		{kb.ArrowLeft, "leases"},
		{kb.Home, "overview"},
	} {
		press(step.key)
		if got := focused(); got != "tab-"+step.view {
			t.Errorf("focus on %q, not on the tab of %s", got, step.view)
		}
		shown := get[[]string](page, `[...document.querySelectorAll('[role=tabpanel]:not([hidden])')].map((e) => e.id)`)
		selected := get[[]string](page, `[...document.querySelectorAll('[role=tab][aria-selected=true][tabindex="0"]')].map((e) => e.id)`)
		if len(shown) != 1 || shown[0] != "view-"+step.view || len(selected) != 1 || selected[0] != "tab-"+step.view {
			t.Errorf("%v is shown and %v selected, not %s", shown, selected, step.view)
		}
	}
	press(kb.Tab)
	if got := focused(); got != "filter" {
		t.Errorf("after the tabs comes %q", got)
	}
	press(kb.Tab)
	page.until(`document.activeElement.matches('.chart')`)
	page.until(`document.activeElement.getAttribute('aria-label')?.includes('Allowed: now')`)
	press(kb.ArrowLeft, kb.ArrowLeft)
	if !get[bool](page, `!!document.activeElement.querySelector('.cursor') &&
		document.activeElement.getAttribute('aria-description')?.includes('Allowed')`) {
		t.Error("arrow keys read nothing out of the chart")
	}
}

func TestPhone(t *testing.T) {
	_, page := busy(t, dashboard.Config{Interval: 200 * time.Millisecond})
	page.size(360, 740, 2)
	for _, view := range views {
		page.click("#tab-" + view)
		page.until(`document.querySelector('#view-` + view + `').checkVisibility()`)
		if over := get[[]string](page, `[...document.querySelectorAll('main *, header *')].filter((e) =>
			e.checkVisibility() && !e.closest('.tabs, .unseen, thead, svg')
			&& e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName + '.' + e.className)`); len(over) > 0 {
			t.Errorf("%s: beyond the edge: %v", view, over)
		}
		if w := get[int](page, `document.documentElement.scrollWidth`); w > 360 {
			t.Errorf("%s is %d pixels wide", view, w)
		}
	}
}

func TestThemes(t *testing.T) {
	_, page := busy(t, dashboard.Config{})
	back := `getComputedStyle(document.body).backgroundColor`
	page.prefer("light")
	light := get[string](page, back)
	contrast(t, page, "light")
	page.prefer("dark")
	dark := get[string](page, back)
	contrast(t, page, "dark")
	if light == dark {
		t.Errorf("light and dark are both %s", light)
	}
	theme := func(want string) {
		page.click("#theme")
		if got := get[string](page, back); got != want {
			t.Errorf("%s on %s, want %s", get[string](page, `document.querySelector('#theme').textContent`), got, want)
		}
	}
	theme(light) // auto → light, whatever the system prefers
	theme(dark)
	page.prefer("light")
	page.open(get[string](page, "location.href"))
	page.live()
	if got := get[string](page, back); got != dark {
		t.Errorf("after a reload: %s, not what was chosen", got)
	}
	theme(light) // dark → auto
}

// contrast requires 4.5:1 between all text and what is behind it (WCAG 2.2, 1.4.3).
func contrast(t *testing.T, page *tab, scheme string) {
	t.Helper()
	low := get[[]string](page, `(() => {
		const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
		const over = (below, color) => { // colors as they are painted, one over the other
			pixel.fillStyle = 'rgb(' + below.join(' ') + ')'; pixel.fillRect(0, 0, 1, 1);
			pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1);
			return [...pixel.getImageData(0, 0, 1, 1).data.slice(0, 3)];
		};
		const light = (c) => c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
			.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
		const low = [];
		for (const e of document.querySelectorAll('header *, main *')) {
			if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
			const chain = [];
			for (let up = e; up; up = up.parentElement) chain.unshift(getComputedStyle(up).backgroundColor);
			const back = chain.reduce(over, [255, 255, 255]);
			const style = getComputedStyle(e);
			const front = over(back, e instanceof SVGElement ? style.fill : style.color);
			const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
			if ((a + 0.05) / (b + 0.05) < 4.5) low.push(e.tagName + ' ' + e.textContent.slice(0, 20) + ' ' + ((a + 0.05) / (b + 0.05)).toFixed(2));
		}
		return low;
	})()`)
	if len(low) > 0 {
		t.Errorf("%s: too little contrast: %v", scheme, low)
	}
}

func TestFlood(t *testing.T) {
	r := start(t, "127.0.0.1:0", dashboard.Config{})
	page := browse(t)
	page.open(r.url)
	page.live()
	ctx, cancel := context.WithCancel(t.Context())
	denied := make(chan int64)
	began := time.Now()
	go func() { denied <- r.flood(ctx) }()
	page.shows("#feed", "flood-")
	for range 3 { // the page answers, while its figures go on
		for _, view := range views {
			page.click("#tab-" + view)
			page.until(`document.querySelector('#view-` + view + `').checkVisibility()`)
		}
		page.click("#tab-overview")
		feed := get[string](page, `document.querySelector('#feed').textContent`)
		page.until(`document.querySelector('#feed').textContent !== ` + quote(feed))
	}
	cancel()
	n := <-denied
	t.Logf("%.0f denials a second", float64(n)/time.Since(began).Seconds())
	if rows := get[int](page, `document.querySelectorAll('#feed tr').length`); rows == 0 || rows > 200 {
		t.Errorf("the feed has %d rows", rows)
	}
	page.click("#pause")
	page.shows("#status", "Paused")
}

func TestPollsWhenStreamsAreTaken(t *testing.T) {
	r := start(t, "127.0.0.1:0", dashboard.Config{MaxStreams: 1})
	first := browse(t)
	first.open(r.url)
	first.live()
	second := browse(t, "503 (Service Unavailable)")
	second.open(r.url)
	second.until(`document.querySelector('#status').dataset.state === 'polling'`)
	r.deny("seen-by-both")
	first.shows("#feed", "seen-by-both")
	second.shows("#feed", "seen-by-both")
	first.open("about:blank")
	second.live()
}
