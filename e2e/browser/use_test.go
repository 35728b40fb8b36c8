package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

func TestFilter(t *testing.T) {
	v := start(t)
	v.open(write(t, twelve(newMaker(t))))
	keys := func(text string) func() { return func() { v.run(chromedp.SendKeys("#text", text)) } }
	click := func(selector string) func() { return func() { v.click(selector) } }
	for _, c := range []struct {
		act  func()
		want int
	}{
		{keys("storage-element"), 3},
		{keys(" element-03"), 1},
		{click("button[type=reset]"), 12},
		{keys("key-readable"), 1},
		{click("button[type=reset]"), 12},
		{click("[name=rank][value=ok]"), 7},
		{click("[name=rank][value=warn]"), 5},
		{func() { v.run(chromedp.SetValue("#state", "EXPIRED")) }, 2},
		{click("button[type=reset]"), 12},
	} {
		c.act()
		// What a script sets fires no event, unlike what a user chooses.
		v.run(chromedp.Evaluate[chromedp.Void](`document.getElementById('state').dispatchEvent(new Event('input', {bubbles: true}))`))
		v.shows(c.want)
	}
	if text := eval[string](v, `document.getElementById('shown').textContent`); text != "12 in all" {
		t.Error(text)
	}
}

func TestSort(t *testing.T) {
	v := start(t)
	v.screen(1440, 900, "light")
	v.open(write(t, twelve(newMaker(t))))
	column := func(n int) []string {
		return eval[[]string](v, fmt.Sprintf(`%[1]s.map(tr => (tr.cells[%[2]d].querySelector('summary') ?? tr.cells[%[2]d]).textContent)`, visibleRows, n))
	}
	if got := column(3); !strings.HasPrefix(got[0], "legacy-ftp") {
		t.Errorf("worst first: %q", got)
	}
	for _, c := range []struct{ keys, first, last string }{
		{"", "legacy-ftp", ""},           // by what is left
		{"\r", "Sample Root", ""},        // and back; what has no end stays last
		{"\t\r", "</script>", ""},        // by name
		{"\r", "storage-element-02", ""}, // and back
	} {
		if c.keys == "" {
			v.click("th:nth-child(2) button")
		} else {
			v.run(chromedp.KeyEvent(c.keys))
		}
		if got := column(3); !strings.HasPrefix(got[0], c.first) || got[11] != c.last {
			t.Errorf("%q: %q", c.keys, got)
		}
	}
	if got := eval[[]string](v, `[...document.querySelectorAll('th[aria-sort]')].map(th => th.textContent + th.ariaSort)`); len(got) != 1 || got[0] != "Namedescending" {
		t.Errorf("%q", got)
	}
}

// Below 1024 pixels a list has what the headers do.
func TestSortOnAPhone(t *testing.T) {
	v := start(t)
	v.screen(360, 900, "light")
	v.open(write(t, twelve(newMaker(t))))
	if !eval[bool](v, `document.getElementById('sort').getClientRects().length > 0`) {
		t.Fatal("nothing to sort with")
	}
	v.run(chromedp.SetValue("#sort", "-3"), chromedp.Evaluate[chromedp.Void](`document.getElementById('sort').dispatchEvent(new Event('input', {bubbles: true}))`))
	if got := eval[string](v, visibleRows+`[0].cells[3].querySelector('summary').textContent`); got != "Sample Root" {
		t.Errorf("the last to end: %q", got)
	}
}

// A mark shows what it stands for, to a pointer and to keys.
func TestMark(t *testing.T) {
	v := start(t)
	v.screen(1440, 900, "light")
	v.open(write(t, many(newMaker(t), 600)))
	const marks = `[...document.querySelectorAll('.timeline.wide .ok .mark')]`
	want := eval[int](v, marks+`.reduce((most, g) => Math.max(most, Number(g.querySelector('text')?.textContent ?? 1)), 0)`)
	at := eval[[]float64](v, fmt.Sprintf(`(() => { const g = %s.find(g => g.querySelector('text')?.textContent === '%d');
		g.scrollIntoView(); g.id = 'm'; const r = g.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`, marks, want))
	v.drawn()
	v.run(chromedp.MouseClickXY(at[0], at[1]))
	v.shows(want)
	v.picture("mark", false)
	v.click("button#mark")
	v.shows(500)
	v.run(chromedp.Evaluate[chromedp.Void](`document.getElementById('m').focus()`), chromedp.KeyEvent("\r"))
	v.shows(want)
}

// What is not in the table at first is drawn by the script as the template would have.
func TestRecord(t *testing.T) {
	m := newMaker(t)
	odd := m.leaf(hostile, -10*day, 3000*day)
	const row = `[...document.querySelectorAll('tbody tr')].find(tr => tr.textContent.includes('onerror')).outerHTML.replace(/>\s+/g, '>').replace(/\s+</g, '<')`
	v := start(t)
	v.open(write(t, sample{odd}))
	want := eval[string](v, row)
	v.open(write(t, append(many(m, 600), odd)))
	v.run(chromedp.SendKeys("#text", "onerror"))
	v.shows(1)
	if got := eval[string](v, row); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if said := v.said(); said != nil {
		t.Errorf("%q", said)
	}
}
