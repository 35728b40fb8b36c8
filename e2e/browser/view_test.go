package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	envRequired    = "ARTSTORE_BROWSER"     // any value: without a Chromium, fail instead of skipping
	envScreenshots = "ARTSTORE_SCREENSHOTS" // directory for pictures and PDF; none are kept without it
	patience       = 5 * time.Minute
)

// view is one tab that has loaded a page.
type view struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	messages []string // that the page made Chromium log
}

// start runs Chromium until the test ends. Loopback and the local file are all it can reach.
func start(t *testing.T) *view {
	t.Helper()
	path := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // its sandbox refuses root
	}
	limited, end := context.WithTimeout(t.Context(), patience)
	allocator, stop := chromedp.NewExecAllocator(limited, options...)
	ctx, closeTab := chromedp.NewContext(allocator)
	v := &view{t: t, ctx: ctx}
	t.Cleanup(func() { closeTab(); stop(); end() })
	v.run() // starts it
	must(t, chromedp.Listen(ctx, v.listen))
	command(v, log.Enable, cdp.Empty{})
	command(v, runtime.Enable, cdp.Empty{})
	return v
}

func chromium(t *testing.T) string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv(envRequired) != "" {
		t.Fatal("there is no Chromium; the Debian package chromium has it")
	}
	t.Skip("no Chromium to look at pages with; the Debian package chromium has it")
	return ""
}

func (v *view) listen(event any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		v.messages = append(v.messages, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		v.messages = append(v.messages, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		v.messages = append(v.messages, fmt.Sprintf("console.%s", e.Type))
	}
}

// said returns what was logged since it was last asked.
func (v *view) said() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := v.messages
	v.messages = nil
	return out
}

func (v *view) run(actions ...chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	must(v.t, chromedp.Do(v.ctx, actions...))
}

func get[T any](v *view, action chromedp.Action[T]) T {
	v.t.Helper()
	out, err := chromedp.Run(v.ctx, action)
	must(v.t, err)
	return out
}

func command[P, R any](v *view, c cdp.Command[P, R], with P) {
	v.t.Helper()
	_, err := chromedp.Call(v.ctx, c, with)
	must(v.t, err)
}

func (v *view) open(path string) {
	v.t.Helper()
	v.run(chromedp.Navigate("file://" + path))
}

// eval gives the value of an expression; the tools of a developer are not bound by the policy of the page.
func eval[T any](v *view, expression string) T {
	v.t.Helper()
	return get(v, chromedp.Evaluate[T](expression))
}

// drawn waits until what is there now is on the screen: a click before that goes to
// what was there before.
func (v *view) drawn() {
	v.t.Helper()
	get(v, chromedp.Evaluate[bool](`new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`, chromedp.EvalAwaitPromise))
}

func (v *view) click(selector string) {
	v.t.Helper()
	v.run(chromedp.ScrollIntoView(selector))
	v.drawn()
	v.run(chromedp.Click(selector))
}

// shows waits for that many rows.
func (v *view) shows(want int) {
	v.t.Helper()
	if _, err := chromedp.Run(v.ctx, chromedp.Poll[bool](fmt.Sprintf("%s.length === %d", visibleRows, want), chromedp.WithPollingTimeout(20*time.Second))); err != nil {
		v.t.Errorf("%d rows, want %d: %s", eval[int](v, visibleRows+".length"), want, eval[string](v, `document.getElementById('shown').textContent`))
	}
}

// screen sets the size of the window, in pixels, and what the user prefers.
func (v *view) screen(width, height int64, scheme string) {
	v.t.Helper()
	v.run(chromedp.EmulateViewport(width, height))
	command(v, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// keep writes a picture or a document for people to look at.
func (v *view) keep(name string, data []byte) {
	v.t.Helper()
	dir := os.Getenv(envScreenshots)
	if dir == "" {
		return
	}
	must(v.t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
}

func (v *view) picture(name string, whole bool) {
	v.t.Helper()
	take := chromedp.CaptureScreenshot()
	if whole {
		take = chromedp.FullScreenshot(100)
	}
	data := get(v, take)
	if len(data) == 0 {
		v.t.Errorf("%s: an empty picture", name)
	}
	v.keep(name+".png", data)
}
