package browser

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const (
	visibleRows = `[...document.querySelectorAll('tbody tr')].filter(tr => tr.getClientRects().length > 0)`
	overflow    = `document.documentElement.scrollWidth - document.documentElement.clientWidth`
)

// It loads without a complaint, in both schemes and at all widths, wider than none.
func TestLooks(t *testing.T) {
	m := newMaker(t)
	v := start(t)
	for name, s := range map[string]sample{"0": nil, "12": twelve(m)} {
		v.open(write(t, s))
		for _, width := range []int64{320, 360, 768, 1024, 1440} {
			for _, scheme := range []string{"light", "dark"} {
				v.screen(width, 900, scheme)
				if over := eval[int](v, overflow); over != 0 {
					t.Errorf("%s rows at %d pixels: it scrolls by %d to the side", name, width, over)
				}
				if width == 360 || width == 1440 {
					v.picture(fmt.Sprintf("%s-%d-%s", name, width, scheme), true)
				}
			}
		}
		if got := eval[int](v, visibleRows+".length"); got != len(s) {
			t.Errorf("%d rows in sight of %d", got, len(s))
		}
		if n := eval[int](v, `document.querySelectorAll('img, iframe, object, [onerror], [onload], a').length`); n != 0 {
			t.Errorf("%d elements that no report has", n)
		}
	}
	if said := v.said(); said != nil {
		t.Errorf("%q", said)
	}
}

func TestPrint(t *testing.T) {
	v := start(t)
	v.open(write(t, twelve(newMaker(t))))
	data := get(v, chromedp.PrintToPDF())
	if !strings.HasPrefix(string(data), "%PDF-") {
		t.Error("no PDF")
	}
	v.keep("print.pdf", data)
}

// The policy lets our script run, and no other one: none that was put into the
// page, from elsewhere or in an attribute.
func TestPolicyOfThePage(t *testing.T) {
	v := start(t)
	ours := write(t, twelve(newMaker(t)))
	v.open(ours)
	if !eval[bool](v, `document.documentElement.classList.contains('js')`) {
		t.Error("our script does not run")
	}
	text, err := os.ReadFile(ours)
	must(t, err)
	planted := filepath.Join(t.TempDir(), "planted.html")
	const foreign = `<script>window.foreign = 1</script><script src="https://other.invalid/x.js"></script><p style="color: red" onclick="window.foreign = 2" id="planted"></p><img src="https://other.invalid/x.png"></body>`
	must(t, os.WriteFile(planted, []byte(strings.Replace(string(text), "</body>", foreign, 1)), 0o600))
	if said := v.said(); said != nil {
		t.Errorf("%q", said)
	}
	v.open(planted)
	v.run(chromedp.Evaluate[chromedp.Void](`document.getElementById('planted').click()`))
	if eval[bool](v, `'foreign' in window`) {
		t.Error("a foreign script ran")
	}
	blocked := 0
	for _, message := range v.said() {
		if strings.Contains(message, "Content Security Policy") {
			blocked++
		}
	}
	if blocked < 5 {
		t.Errorf("%d things were blocked", blocked)
	}
}

// Without JavaScript all is there, the rest as text, but the filter.
func TestWithoutScripts(t *testing.T) {
	v := start(t)
	path := write(t, many(newMaker(t), 600))
	command(v, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	v.open(path)
	if eval[bool](v, `document.documentElement.classList.contains('js')`) {
		t.Fatal("scripts run")
	}
	if got := eval[int](v, visibleRows+".length"); got != 500 {
		t.Errorf("%d rows at first", got)
	}
	if eval[bool](v, `['filter', 'next'].some(id => document.getElementById(id).getClientRects().length > 0)`) {
		t.Error("a control that does nothing")
	}
	// What finds elements for clicks is a script too.
	at := eval[[]float64](v, `(() => { const e = document.querySelector('#rest summary'); e.scrollIntoView(); const r = e.getBoundingClientRect(); return [r.x + 25, r.y + 5] })()`)
	// A click before the scrolled page is drawn goes to what was there before, and
	// what was opened has no text before it is laid out.
	within := func(d time.Duration, what string) bool {
		for limit := time.Now().Add(d); time.Now().Before(limit); {
			if eval[bool](v, what) {
				return true
			}
		}
		return false
	}
	for range 10 {
		v.run(chromedp.MouseClickXY(at[0], at[1]))
		if within(time.Second, `document.querySelector('#rest').open`) {
			break
		}
	}
	const text = `document.querySelector('#rest pre').innerText`
	within(10*time.Second, text+" !== ''")
	if got := eval[string](v, text); strings.Count("\n"+got, "\nok\t") != 100 {
		t.Errorf("the others are not there: %.200q", got)
	}
	v.picture("without-scripts", false)
}

// The stage of the CI keeps to a few thousand; `go test -run Many -rows 20000` takes minutes to sign them.
var manyRows = flag.Int("rows", 5_000, "of the page of TestMany")

// What many certificates cost: the bounds are far above what a slow machine takes.
func TestMany(t *testing.T) {
	n := *manyRows
	v := start(t)
	path := write(t, many(newMaker(t), n))
	info, err := os.Stat(path)
	must(t, err)
	if info.Size() > int64(n)*800+1<<20 {
		t.Errorf("the page has %d bytes", info.Size())
	}
	v.screen(1440, 900, "light")
	v.open(path)
	loaded := eval[float64](v, `performance.getEntriesByType('navigation')[0].loadEventEnd`)
	const timed = `(() => { const t = performance.now(); %s; document.body.offsetHeight; return performance.now() - t })()`
	filter := fmt.Sprintf(timed, `document.getElementById('text').value = 'svc-0123'; document.getElementById('filter').dispatchEvent(new Event('input'))`)
	first, filtered := eval[float64](v, filter), eval[float64](v, filter)
	if got := eval[int](v, visibleRows+".length"); got != 10 {
		t.Errorf("%d rows of 10", got)
	}
	v.run(chromedp.Evaluate[chromedp.Void](`document.getElementById('all').scrollIntoView()`))
	v.picture("many-filtered", false)
	v.click("button[type=reset]")
	sorted := eval[float64](v, fmt.Sprintf(timed, `document.querySelector('th:nth-child(4) button').click()`))
	t.Logf("%d rows: %.1f MB, loaded in %.0f ms, filtered in %.0f ms at first and %.0f ms then, sorted in %.0f ms", n, float64(info.Size())/1e6, loaded, first, filtered, sorted)
	if loaded > 10_000 || first > 5_000 || filtered > 2_000 || sorted > 5_000 {
		t.Error("too slow")
	}
	v.click("button#next")
	v.shows(1000) // 500 more
	v.open(path)
	v.picture("many-1440", true)
	v.screen(360, 900, "dark")
	v.picture("many-360", false)
	if over := eval[int](v, overflow); over != 0 {
		t.Errorf("it scrolls by %d to the side", over)
	}
}
