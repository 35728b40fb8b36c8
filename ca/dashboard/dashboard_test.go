package dashboard_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/dashboard"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// world is a running authority, its record, and the dashboard beside it.
type world struct {
	t       *testing.T
	dir     string
	store   *store.Store
	db      *sqldb.DB
	handler http.Handler
	serial  int
}

func newWorld(t *testing.T, opt catest.Options, change func(*dashboard.Options)) *world {
	t.Helper()
	authority := catest.Start(t, opt)
	where := opt.Database
	if where == "" {
		where = authority.Dir + "/pki.db"
	}
	db, err := sqldb.Open(t.Context(), where)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	o := dashboard.Options{Dir: authority.Dir, Program: "artstore-pki test", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	d, err := dashboard.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, dir: authority.Dir, store: store.New(db), db: db, handler: d.Handler()}
}

// commit adds a certificate, of a lineage if previous is set, and returns it.
func (w *world) commit(change func(*record.Certificate)) record.Certificate {
	w.t.Helper()
	w.serial++
	now := time.Now()
	serial := fmt.Sprint(70_000 + w.serial)
	c := record.Certificate{
		Serial: serial, Lineage: serial, Service: "ingester", Kind: kinds.Issued, Caller: "token enrolment/ingester", Provisioner: "enrolment", Issuer: "aa", KeyHash: certs.KeyHash([]byte(serial)),
		Names: []string{"n" + serial + ".example"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour), IssuedAt: now, DER: []byte(serial), Chain: []byte{},
	}
	if change != nil {
		change(&c)
	}
	_, err := w.store.Commit(w.t.Context(), store.Issuance{Certificate: c})
	must(w.t, err)
	return c
}

// settle waits until the authority has counted all that was committed.
func (w *world) settle() {
	w.t.Helper()
	for {
		var pending int
		must(w.t, w.db.Read.QueryRowContext(w.t.Context(), `SELECT COUNT(*) FROM log_pending`).Scan(&pending))
		behind, err := tally.Behind(w.t.Context(), w.db.Read)
		must(w.t, err)
		if pending == 0 && behind == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond) // the authority does it each second, and tells nobody
	}
}

// get asks for a page as a browser on loopback does.
func (w *world) get(address string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.do(http.MethodGet, address, "127.0.0.1:9480")
}

func (w *world) do(method, address, host string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, address, nil)
	r.Host = host
	out := httptest.NewRecorder()
	w.handler.ServeHTTP(out, r)
	return out
}

// page returns the text of a page that must be there.
func (w *world) page(address string) string {
	w.t.Helper()
	out := w.get(address)
	if out.Code != http.StatusOK {
		w.t.Fatalf("%s: %d %s", address, out.Code, textOf(w.t, out.Body.Bytes()))
	}
	return textOf(w.t, out.Body.Bytes())
}

func textOf(t *testing.T, data []byte) string {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(data))
	must(t, err)
	var b strings.Builder
	for n := range doc.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" {
			b.WriteString(strings.TrimSpace(n.Data) + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// fill records some of everything, with a text of the caller in each place that a service or an operator
// chooses.
func (w *world) fill(text string) {
	w.t.Helper()
	first := w.commit(func(c *record.Certificate) {
		c.Service, c.Caller, c.Provisioner, c.Names = text, text, text, []string{text, text + "2"}
	})
	next := w.commit(func(c *record.Certificate) {
		c.Service, c.Caller, c.Names, c.Lineage, c.Previous, c.Kind = text, text, first.Names, first.Serial, first.Serial, kinds.Rekeyed
	})
	_, err := w.store.ReportDelivery(w.t.Context(), record.Delivery{Serial: next.Serial, Lineage: first.Lineage, Address: text, Servers: 2, Since: time.Now()}, time.Now())
	must(w.t, err)
	gone := w.commit(func(c *record.Certificate) { c.Service, c.Names = text, []string{text} })
	must(w.t, w.store.Revoke(w.t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: gone.Serial, RevokedAt: time.Now(), Reason: 1, Note: text, Caller: text}}))
	w.commit(func(c *record.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-23*time.Hour), time.Now().Add(time.Hour)
	}) // overdue
	w.commit(func(c *record.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-23*time.Hour), time.Now().Add(-time.Hour)
	})
	must(w.t, w.store.Refuse(w.t.Context(), record.Event{At: time.Now(), Kind: kinds.Refused, Caller: text, Service: text, Rule: text, Detail: text}))
	w.settle()
}

// TestPages looks at each page of a record with some of everything, in both databases.
func TestPages(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		opt := catest.Options{}
		if sqldb.IsURL(where) {
			opt.Database = where
		}
		w := newWorld(t, opt, nil)
		w.fill("storage")
		serial := certs.HexSerial("70002")
		for address, want := range map[string][]string{
			"/":                       {"1 certificate is overdue for renewal", "The next certificate to end is that of ingester", "2 in use", "1 ended in 24 h", "Active root"},
			"/services":               {"Services: live", "storage", "storage, storage2", "at storage and 1 more", "overdue", "not reported"},
			"/services?show=overdue":  {"overdue", "should have renewed"},
			"/services?show=ended":    {"ended", "1h ago"},
			"/services?show=revoked":  {"revoked"},
			"/services?show=replaced": {"There is none."},
			"/services?show=silent":   {"storage"},
			"/certificate/70002":      {serial, "rekeyed", "Renews", "proved", "Lineage", "this one"},
			"/certificate/" + serial:  {serial},
			"/issuance":               {"first ones", "storage", "Refusals by rule"},
			"/issuance?over=30d":      {"30 days"},
			"/trust":                  {"active", "issues", "has not reported yet"},
			"/revocations":            {"keyCompromise", "storage"},
			"/log":                    {"The log is kept", "refused", "artstore-pki"},
			"/search?q=n7000":         {"n70004.example", "n70005.example"},
			"/search?q=nobody":        {"No certificate has such a name"},
		} {
			text := w.page(address)
			for _, s := range want {
				if !strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
					t.Errorf("%s lacks %q: %s", address, s, text)
				}
			}
		}
		for address, want := range map[string]string{"/search?q=70002": "/certificate/70002", "/search?q=" + serial: "/certificate/70002", "/search?q=" + certs.KeyHash([]byte("70002")): "/certificate/70002"} {
			if out := w.get(address); out.Code != http.StatusSeeOther || out.Header().Get("Location") != want {
				t.Errorf("%s: %d %q", address, out.Code, out.Header().Get("Location"))
			}
		}
		for address, want := range map[string]int{"/nothing": 404, "/certificate/12345": 404, "/certificate/x": 404, "/services?after=x": 400, "/services?show=x": 400, "/log?after=1": 400, "/search?q=n7&after=x": 400, "/search?q=%C3%A4": 200, "/certificate/" + strings.Repeat("9", 20_000): 404, "/search?q=" + strings.Repeat("9", 20_000): 200, "/csv/nothing": 404} {
			if out := w.get(address); out.Code != want {
				t.Errorf("%s: %d, want %d", address, out.Code, want)
			}
		}
	})
}

// TestCSV reads the table of each page as CSV, and follows the header to the next page.
func TestCSV(t *testing.T) {
	w := newWorld(t, catest.Options{}, nil)
	w.fill("=1+1")
	for address, want := range map[string]int{"/csv/ends": 2, "/csv/services": 2, "/csv/services?show=ended": 1, "/csv/issuance": 1, "/csv/revocations": 1, "/csv/trust": 2, "/csv/search?q=n7": 2, "/csv/certificate/70002": 2} {
		out := w.get(address)
		lines, err := csv.NewReader(out.Body).ReadAll()
		if err != nil || out.Code != http.StatusOK || !strings.HasPrefix(out.Header().Get("Content-Type"), "text/csv") || len(lines) != want+1 {
			t.Errorf("%s: %d %v %d lines, want %d: %v", address, out.Code, err, len(lines)-1, want, lines)
		}
		for _, line := range lines {
			for _, cell := range line {
				if cell != "" && strings.ContainsAny(cell[:1], "=+-@") {
					t.Errorf("%s: %q is a formula", address, cell)
				}
			}
		}
	}
	for range 520 {
		w.commit(nil)
	}
	w.settle()
	seen, address := 0, "/csv/services"
	for pages := 0; address != ""; pages++ {
		out := w.get(address)
		lines, err := csv.NewReader(out.Body).ReadAll()
		must(t, err)
		seen += len(lines) - 1
		link := out.Header().Get("Link")
		if address, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">"); pages > 5 {
			t.Fatal("no end")
		}
	}
	if seen != 522 {
		t.Errorf("%d lineages by all pages of 522", seen)
	}
}

// TestOnlyReads asks with each method that changes something, and writes over the connection of the dashboard.
func TestOnlyReads(t *testing.T) {
	w := newWorld(t, catest.Options{}, nil)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect, "PROPFIND", "get"} {
		for _, address := range []string{"/", "/services", "/csv/services", "/nothing"} {
			out := w.do(method, address, "localhost")
			if out.Code != http.StatusMethodNotAllowed || out.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d", method, address, out.Code)
			}
		}
	}
	if out := w.do(http.MethodHead, "/services", "localhost"); out.Code != http.StatusOK {
		t.Errorf("HEAD: %d", out.Code)
	}
	postgres.Engines(t, func(t *testing.T, where string) {
		db, err := sqldb.Create(t.Context(), where)
		must(t, err)
		defer func() { _ = db.Close() }()
		readers, err := sqldb.OpenReaders(t.Context(), where, 2)
		must(t, err)
		defer func() { _ = readers.Close() }()
		for range 4 { // more than it has connections
			if _, err := readers.Read.ExecContext(t.Context(), `DELETE FROM holders`); err == nil {
				t.Error("a connection of readers can write")
			}
		}
		if err := readers.Change(t.Context(), func(*sqldb.Txn) error { return nil }); err == nil {
			t.Error("a database of readers can be changed")
		}
	})
}

// TestManyReaders asks for pages from many goroutines while certificates are committed, more than are made
// at a time.
func TestManyReaders(t *testing.T) {
	w := newWorld(t, catest.Options{}, nil)
	w.fill("storage")
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			for n := range 10 {
				address := []string{"/", "/services", "/trust", "/log", "/certificate/70002", "/csv/services"}[(i+n)%6]
				if out := w.get(address); out.Code != http.StatusOK {
					t.Errorf("%s: %d", address, out.Code)
				}
			}
		})
	}
	for range 50 {
		w.commit(nil)
	}
	group.Wait()
}

// TestForeignHosts expects that only names of loopback are answered, unless the server has authenticated
// its peer.
func TestForeignHosts(t *testing.T) {
	w := newWorld(t, catest.Options{}, nil)
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:9480": 200, "127.0.0.1": 200, "127.0.0.1:9480": 200, "[::1]:9480": 200, "127.9.9.9": 200,
		"evil.example": 421, "evil.example:9480": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "10.0.0.1": 421, "": 421, "0.0.0.0": 421,
	} {
		if out := w.do(http.MethodGet, "/services", host); out.Code != want {
			t.Errorf("host %q: %d, want %d", host, out.Code, want)
		}
	}
	behind := newWorld(t, catest.Options{}, func(o *dashboard.Options) { o.AnyHost = true })
	if out := behind.do(http.MethodGet, "/", "pki.example"); out.Code != http.StatusOK {
		t.Errorf("any host: %d", out.Code)
	}
}

// TestHeaders expects the headers that bind a browser, on pages, errors, redirects and files alike.
func TestHeaders(t *testing.T) {
	w := newWorld(t, catest.Options{}, nil)
	w.commit(nil)
	for _, address := range []string{"/", "/services", "/csv/services", "/nothing", "/search?q=70001", "/services?after=x"} {
		h := w.get(address).Header()
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q", address, name, h.Get(name))
			}
		}
		if p := h.Get("Content-Security-Policy"); !strings.HasPrefix(p, "default-src 'none'; style-src 'sha256-") || !strings.HasSuffix(p, "frame-ancestors 'none'") {
			t.Errorf("%s: %s", address, p)
		}
	}
}

// elements and attributes are all that a page may have.
var (
	elements   = strings.Fields("html head meta title style body a header p span nav ul li main div h1 h2 h3 b section form label input button dl dt dd small code time figure figcaption svg rect details summary table caption thead tbody tr th td footer pre")
	attributes = strings.Fields("lang charset name content class href aria-label aria-current aria-labelledby id tabindex role method action type value maxlength autocomplete spellcheck viewbox viewBox preserveaspectratio preserveAspectRatio x y width height scope data-label datetime rel")
)

// TestHostileRecord fills each text that services choose with something hostile, follows all links from
// the first page, and expects nothing but the elements and attributes of our pages, and pages of
// bounded size.
func TestHostileRecord(t *testing.T) {
	w := newWorld(t, catest.Options{}, nil)
	for _, text := range []string{
		"<script>alert(1)</script>", `" onmouseover="alert(1)`, "' onload='x", "</title><img src=x onerror=alert(1)>", "javascript:alert(1)", "]]><svg onload=alert(1)>",
		"<!-- ", "</style></table></svg><p>", "a\x1b[31m\x07", "\u202egpj.exe\u2066", "{{.}}`${1}`", "=HYPERLINK(1)", "//evil.example/x", "../../x?y=1&z=2#w", strings.Repeat("<", 3000),
	} {
		w.fill(text)
	}
	seen, queue := map[string]bool{}, []string{"/"}
	for len(queue) > 0 && len(seen) < 400 {
		address := queue[0]
		if queue = queue[1:]; seen[address] {
			continue
		}
		seen[address] = true
		out := w.get(address)
		data := out.Body.Bytes()
		if out.Code != http.StatusOK {
			t.Fatalf("%s: %d %.300s", address, out.Code, textOf(t, data))
		}
		if len(data) > 200<<10 {
			t.Errorf("%s has %d bytes", address, len(data))
		}
		if strings.HasPrefix(address, "/csv/") {
			continue
		}
		doc, err := html.Parse(bytes.NewReader(data))
		must(t, err)
		for n := range doc.Descendants() {
			if n.Type == html.CommentNode || n.Type == html.ElementNode && !slices.Contains(elements, n.Data) {
				t.Fatalf("%s has <%s>", address, n.Data)
			}
			for _, a := range n.Attr {
				if !slices.Contains(attributes, a.Key) {
					t.Fatalf("%s has the attribute %q", address, a.Key)
				}
				if a.Key != "href" || strings.HasPrefix(a.Val, "#") {
					continue
				}
				if !strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "//") {
					t.Fatalf("%s leads to %q", address, a.Val)
				}
				queue = append(queue, a.Val)
			}
		}
		if i := bytes.IndexFunc(data, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' || r == '\u2066' }); i >= 0 {
			t.Errorf("%s has %q", address, data[max(0, i-20):i+20])
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d pages were found", len(seen))
	}
}

// TestOpenRefuses expects that neither a directory without an authority nor a record of another version is opened.
func TestOpenRefuses(t *testing.T) {
	if _, err := dashboard.Open(t.Context(), dashboard.Options{Dir: t.TempDir()}); err == nil {
		t.Error("an empty directory was opened")
	}
	authority := catest.Start(t, catest.Options{})
	db, err := sqldb.Open(t.Context(), authority.Dir+"/pki.db")
	must(t, err)
	defer func() { _ = db.Close() }()
	must(t, db.Change(t.Context(), func(tx *sqldb.Txn) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
		return err
	}))
	if _, err := dashboard.Open(t.Context(), dashboard.Options{Dir: authority.Dir}); err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("a record of a newer program: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
