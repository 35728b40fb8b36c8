package browser

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// hostileNote is what an operator may write as the reason of a revocation.
const hostileNote = `</td><script>window.foreign = 1</script><img src=x onerror="window.foreign = 2">` + "\u202e"

// authority is a program that serves an authority with its dashboard.
type authority struct {
	t              *testing.T
	program, dir   string
	dashboard, url string
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// startAuthority builds the program, makes an authority whose own names are hostile too, and fills its record:
// services, a renewal, a revocation with a hostile note, a refusal.
func startAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.program = filepath.Join(a.dir, "artstore-pki")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", a.program, "./cmd/artstore-pki")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	a.run("init", "--dir", "ca", "--plain-keys", "--name", `ArtStore <b onclick="x">`, "--dns", "localhost", "--dns", "127.0.0.1")
	serve := exec.CommandContext(t.Context(), a.program, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0", "--ready-file", "url")
	serve.Dir = a.dir
	said := &output{}
	serve.Stdout, serve.Stderr = said, said
	serve.Cancel = func() error { return serve.Process.Signal(os.Interrupt) }
	must(t, serve.Start())
	t.Cleanup(func() {
		_ = serve.Process.Signal(os.Interrupt)
		if err := serve.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("serve: %v\n%s", err, said)
		}
	})
	for a.url == "" {
		if data, err := os.ReadFile(filepath.Join(a.dir, "url")); err == nil {
			a.url = strings.TrimSpace(string(data))
		}
		time.Sleep(10 * time.Millisecond) // the file says when it serves
	}
	a.dashboard = regexp.MustCompile(`dashboard: serving on (\S+)`).FindStringSubmatch(said.String())[1]
	for _, service := range []string{"ingester", "query-module", "storage-element", "admin-module"} {
		a.run("token", "--dir", "ca", "--out", service+".token", service)
		a.run("issue", "--ca-url", a.url, "--token-file", service+".token", "--out", service)
	}
	a.run("renew", "--ca-url", a.url, "ingester")
	a.run("revoke", "--dir", "ca", "--file", "query-module/tls.crt", "--note", hostileNote)
	refused := exec.CommandContext(t.Context(), a.program, "issue", "--ca-url", a.url, "--token-file", "query-module.token", "--out", "again")
	refused.Dir = a.dir
	if refused.Run() == nil {
		t.Error("a spent token was taken")
	}
	return a
}

func (a *authority) run(args ...string) {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), a.program, args...)
	cmd.Dir = a.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// visit opens a page of the dashboard.
func (v *view) visit(address string) {
	v.t.Helper()
	v.run(chromedp.Navigate(address))
}

// faults returns what is wrong with a page for those who do not see it, or who use the keyboard: WCAG 2.2, as far as a
// script can tell.
const faults = `(() => {
	const out = [], all = s => [...document.querySelectorAll(s)], seen = e => e.getClientRects().length > 0;
	if (document.documentElement.lang !== 'en') out.push('no language');
	if (document.title === '') out.push('no title');
	for (const [what, n] of [['h1', 1], ['main', 1], ['nav', 1], ['header', 1], ['footer', 1]]) if (all(what).length !== n) out.push(all(what).length + ' ' + what);
	const ids = all('[id]').map(e => e.id);
	if (new Set(ids).size !== ids.length) out.push('an id twice: ' + ids);
	for (const e of all('[aria-labelledby]')) if (!document.getElementById(e.getAttribute('aria-labelledby'))) out.push('labelled by nothing');
	let level = 0;
	for (const h of all('h1, h2, h3')) { const l = Number(h.tagName[1]); if (l > level + 1) out.push('a heading is left out'); level = l; }
	for (const t of all('table')) {
		if (!t.caption || t.caption.textContent.trim() === '') out.push('a table without a caption');
		if ([...t.querySelectorAll('th')].some(th => th.scope !== 'col' || th.textContent.trim() === '')) out.push('a column without a scope or a name');
		for (const r of t.tBodies[0].rows) if (r.cells.length !== t.tHead.rows[0].cells.length) out.push('a row of another width');
	}
	for (const e of all('svg')) if (e.getAttribute('role') !== 'img' || !e.getAttribute('aria-label')) out.push('a picture without words');
	for (const e of all('input:not([type=hidden])')) if (e.labels.length === 0) out.push('an input without a label');
	for (const e of all('a')) if (e.textContent.trim() === '') out.push('a link without a text: ' + e.href);
	for (const e of all('nav a, .choices a, button')) if (seen(e) && e.getBoundingClientRect().height < 24) out.push('a target of ' + e.getBoundingClientRect().height + ' pixels');
	for (const e of all('[tabindex]')) if (e.tabIndex > 0) out.push('an order of its own');
	if (all('nav a[aria-current=page]').length > 1) out.push('two present pages');
	if (document.scripts.length + all('img, iframe, object, embed, link, [onclick], [onerror], [onload], [style]').length > 0) out.push('something that no page has');
	return out;
})()`

// TestDashboard looks at the pages of an authority that runs.
func TestDashboard(t *testing.T) {
	a := startAuthority(t)
	t.Run("looks", func(t *testing.T) { dashboardLooks(t, a) })
	t.Run("keys", func(t *testing.T) { dashboardByKeys(t, a) })
}

// dashboardLooks looks at all pages in both widths and schemes, with and without scripts: no complaint of Chromium, no
// scrolling to the side, nothing for which a reader without eyes or mouse would be stuck.
func dashboardLooks(t *testing.T, a *authority) {
	v := start(t)
	time.Sleep(3 * time.Second) // the counts are a second behind; nothing here depends on them, only the pictures
	v.visit(a.dashboard + "/services")
	serial := eval[string](v, `document.querySelector('td a[href^="/certificate/"]').getAttribute('href')`)
	pages := map[string]string{
		"front": "/", "services": "/services", "overdue": "/services?show=overdue", "revoked": "/services?show=revoked", "certificate": serial, "issuance": "/issuance", "issuance-30d": "/issuance?over=30d",
		"trust": "/trust", "revocations": "/revocations", "log": "/log", "search": "/search", "search-found": "/search?q=local",
		"search-hostile": `/search?q=%22%3E%3Cscript%3Ewindow.foreign%3D3%3C%2Fscript%3E`, "services-hostile": `/services?service=%3Cimg%20src%3Dx%20onerror%3Dwindow.foreign%3D4%3E`,
	}
	for _, scripts := range []bool{true, false} {
		command(v, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
		for name, path := range pages {
			v.visit(a.dashboard + path)
			for _, width := range []int64{390, 1280} {
				for _, scheme := range []string{"light", "dark"} {
					v.screen(width, 900, scheme)
					if over := eval[int](v, overflow); over != 0 {
						t.Errorf("%s at %d pixels: it scrolls by %d to the side", path, width, over)
					}
					if scripts {
						v.picture(fmt.Sprintf("dashboard-%s-%d-%s", name, width, scheme), true)
					}
				}
				if found := eval[[]string](v, faults); len(found) > 0 {
					t.Errorf("%s at %d pixels: %q", path, width, found)
				}
			}
			if eval[bool](v, `'foreign' in window`) {
				t.Errorf("%s: a foreign script ran", path)
			}
			if said := v.said(); said != nil {
				t.Errorf("%s: %q", path, said)
			}
		}
	}
	v.visit(a.dashboard + "/nothing")
	if found := eval[[]string](v, faults); len(found) > 0 {
		t.Errorf("the page of an error: %q", found)
	}
}

// dashboardByKeys goes through a page by the keyboard: first comes the link that leaves the navigation out, then
// all in the order of the page, and each can be seen to have the focus.
func dashboardByKeys(t *testing.T, a *authority) {
	v := start(t)
	v.screen(1280, 900, "light")
	v.visit(a.dashboard + "/services")
	const at = `(() => { const e = document.activeElement; return [...document.querySelectorAll('*')].indexOf(e) })()`
	last := -1
	for i := range 20 {
		v.run(chromedp.KeyEvent("\t"))
		now := eval[int](v, at)
		if now <= last {
			t.Errorf("step %d goes from element %d to %d", i, last, now)
		}
		last = now
		if i == 0 && eval[string](v, `document.activeElement.textContent`) != "Skip to the content" {
			t.Error("the first is not the link to the content")
		}
		if eval[string](v, `getComputedStyle(document.activeElement).outlineStyle`) == "none" {
			t.Errorf("step %d: the focus cannot be seen at %q", i, eval[string](v, `document.activeElement.outerHTML`))
		}
	}
	v.visit(a.dashboard + "/search")
	// By focus and keys: what finds elements for the driver loses them when a page with its policy for openers
	// gets a process of its own.
	v.run(chromedp.Evaluate[chromedp.Void](`document.querySelector('input[type=search]').focus()`), chromedp.KeyEvent("local"), chromedp.KeyEvent("\r"))
	for limit := time.Now().Add(time.Minute); eval[string](v, `location.search`) != "?q=local"; {
		if time.Now().After(limit) {
			t.Fatalf("the search leads to %s", eval[string](v, `location.href`))
		}
	}
	if n := eval[int](v, `document.querySelectorAll('tbody tr').length`); n == 0 {
		t.Error("nothing found")
	}
	v.run(chromedp.Evaluate[chromedp.Void](`document.querySelector('td a[href^="/certificate/"]').focus()`), chromedp.KeyEvent("\r"))
	for limit := time.Now().Add(time.Minute); !strings.HasPrefix(eval[string](v, `location.pathname`), "/certificate/"); {
		if time.Now().After(limit) {
			t.Fatal("a serial does not lead to its certificate")
		}
	}
	if data := get(v, chromedp.PrintToPDF()); !strings.HasPrefix(string(data), "%PDF-") {
		t.Error("no PDF")
	} else {
		v.keep("dashboard-certificate.pdf", data)
	}
	if said := v.said(); said != nil {
		t.Errorf("%q", said)
	}
}
