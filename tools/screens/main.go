// Command screens takes the pictures of the terminal dashboard that the guide shows: it runs "throttlekit serve", asks it as a busy
// service would, runs "throttlekit top" on a terminal of its own, and has Chromium draw what that terminal shows.
//
//	go build -o /tmp/throttlekit ./cmd/throttlekit
//	GOWORK=off go -C tools/screens run . -throttlekit /tmp/throttlekit -out ../../docs/img
//
// The last line is run from the root of the repository. It takes a minute or two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"image/color"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

const (
	cols       = 112
	tall, flat = 32, 18 // rows
	cellWidth  = 8
	cellHeight = 17
	margin     = 14
	// warm is how long load runs before the first picture.
	warm = 20 * time.Second
)

func main() {
	throttlekit := flag.String("throttlekit", "throttlekit", "the program to take pictures of")
	out := flag.String("out", ".", "folder for the pictures")
	chromium := flag.String("chromium", "chromium", "the program Chromium")
	flag.Parse()
	if err := run(*throttlekit, *out, *chromium); err != nil {
		fmt.Fprintln(os.Stderr, "screens:", err)
		os.Exit(1)
	}
}

func run(throttlekit, out, chromium string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	addr, stop, err := serve(ctx, throttlekit)
	if err != nil {
		return err
	}
	defer stop()
	screen, err := open(ctx, throttlekit, addr, true)
	if err != nil {
		return err
	}
	defer screen.close()
	light, err := open(ctx, throttlekit, addr, false)
	if err != nil {
		return err
	}
	defer light.close()
	time.Sleep(warm)
	time.Sleep(time.Until(late(time.Now())))
	if err := screen.shoot(ctx, '1', chromium, filepath.Join(out, "top-overview.png")); err != nil {
		return err
	}
	if err := light.shoot(ctx, '1', chromium, filepath.Join(out, "top-light.png")); err != nil {
		return err
	}
	if err := screen.resize(flat); err != nil {
		return err
	}
	for i, view := range []string{"latency", "fairness", "capacity", "guards", "budgets", "leases"} {
		if err := screen.shoot(ctx, byte('2'+i), chromium, filepath.Join(out, "top-"+view+".png")); err != nil {
			return err
		}
	}
	return nil
}

// late is the next time that is late in a window of a minute, when there is most to see.
func late(now time.Time) time.Time {
	then := now.Truncate(time.Minute).Add(35 * time.Second)
	if then.Before(now) {
		then = then.Add(time.Minute)
	}
	return then
}

// screen is a terminal with the dashboard on it.
type screen struct {
	cmd    *exec.Cmd
	master *os.File
	cells  *vt.SafeEmulator
	rows   int
	back   string
	text   string
}

func open(ctx context.Context, throttlekit, addr string, dark bool) (*screen, error) {
	s := &screen{cells: vt.NewSafeEmulator(cols, tall), rows: tall, back: "#ffffff", text: "#24292f"}
	back, text := color.RGBA{0xff, 0xff, 0xff, 0xff}, color.RGBA{0x24, 0x29, 0x2f, 0xff}
	if dark {
		s.back, s.text = "#0d1117", "#d6dde5"
		back, text = color.RGBA{0x0d, 0x11, 0x17, 0xff}, color.RGBA{0xd6, 0xdd, 0xe5, 0xff}
	}
	s.cells.SetDefaultBackgroundColor(back)
	s.cells.SetDefaultForegroundColor(text)
	s.cmd = exec.CommandContext(ctx, throttlekit, "top", "--addr", addr)
	s.cmd.Env = append(os.Environ(), "TERM=xterm-256color", "COLORTERM=truecolor", "LC_ALL=C.UTF-8", "NO_COLOR=")
	var err error
	if s.master, err = pty.StartWithSize(s.cmd, &pty.Winsize{Cols: cols, Rows: tall}); err != nil {
		return nil, err
	}
	go func() { _, _ = io.Copy(s.cells, s.master) }()
	go func() { _, _ = io.Copy(s.master, s.cells) }() // what a terminal answers, such as its colours
	return s, nil
}

func (s *screen) close() {
	_, _ = s.master.WriteString("q")
	_ = s.cmd.Wait()
	_ = s.master.Close()
	_ = s.cells.Close()
}

// resize changes how many rows there are.
func (s *screen) resize(rows int) error {
	s.rows = rows
	s.cells.Resize(cols, rows)
	return pty.Setsize(s.master, &pty.Winsize{Cols: cols, Rows: uint16(rows)})
}

// shoot presses a key, lets the screen settle, and makes a picture of it.
func (s *screen) shoot(ctx context.Context, key byte, chromium, file string) error {
	if _, err := s.master.Write([]byte{key}); err != nil {
		return err
	}
	time.Sleep(time.Second)
	folder, err := os.MkdirTemp("", "screens")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	page := filepath.Join(folder, "screen.html")
	if err := os.WriteFile(page, []byte(s.page()), 0o600); err != nil {
		return err
	}
	file, err = filepath.Abs(file)
	if err != nil {
		return err
	}
	args := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--hide-scrollbars", "--user-data-dir=" + filepath.Join(folder, "profile"),
		fmt.Sprintf("--window-size=%d,%d", cols*cellWidth+2*margin, s.rows*cellHeight+2*margin),
		"--screenshot=" + file, "file://" + page,
	}
	if said, err := exec.CommandContext(ctx, chromium, args...).CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(said)))
	}
	fmt.Println(file)
	return nil
}

// page is the screen in HTML: every cell where it is on the terminal.
func (s *screen) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<!doctype html><meta charset="utf-8"><style>body{margin:0;background:%s;color:%s;`+
		`font:13px/%dpx "DejaVu Sans Mono",monospace}i{position:absolute;font-style:normal;white-space:pre;width:%dpx;height:%dpx}`+
		`b{font-weight:bold}</style>`, s.back, s.text, cellHeight, cellWidth, cellHeight)
	for y := range s.rows {
		for x := range cols {
			cell := s.cells.CellAt(x, y)
			if cell == nil || cell.Content == "" {
				continue
			}
			fore, back := hex(cell.Style.Fg, s.text), hex(cell.Style.Bg, "")
			if cell.Style.Attrs&uv.AttrReverse != 0 {
				fore, back = s.back, fore
			}
			if cell.Content == " " && back == "" {
				continue
			}
			weight := ""
			if cell.Style.Attrs&uv.AttrBold != 0 {
				weight = ";font-weight:bold"
			}
			fill := ""
			if back != "" {
				fill = ";background:" + back
			}
			fmt.Fprintf(&b, `<i style="left:%dpx;top:%dpx;color:%s%s%s">%s</i>`,
				margin+x*cellWidth, margin+y*cellHeight, fore, weight, fill, escape.Replace(cell.Content))
		}
	}
	return b.String()
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func hex(c color.Color, otherwise string) string {
	if c == nil {
		return otherwise
	}
	r, g, b, _ := c.RGBA()
	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}
