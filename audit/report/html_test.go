package report_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
)

var update = flag.Bool("update", false, "write testdata/report.html")

// varying matches the texts that differ from run to run, or have tests of their own.
var varying = regexp.MustCompile(`(?s)0x[0-9a-f]+|[0-9a-f]{64}|sha256-[A-Za-z0-9+/&#;]+=|(<style>).*(</style>)|(<script>).*(</script>)`)

func TestHTML(t *testing.T) {
	const golden = "testdata/report.html"
	r := fixed(t)
	r.Policy = []string{"a sentence"}
	var b bytes.Buffer
	certtest.Must(t, r.Render("html", &b, 0))
	got := varying.ReplaceAll(b.Bytes(), []byte("$1$2$3$4…"))
	if *update {
		certtest.Must(t, os.WriteFile(golden, got, 0o600))
	}
	want, err := os.ReadFile(golden)
	certtest.Must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("not what is in %s; go test ./audit/report -run HTML -update writes it, and git diff shows it:\n%s", golden, got)
	}
}

// shape returns a page without its text: elements, and names of attributes.
func shape(t *testing.T, page []byte) (out []string) {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(page))
	certtest.Must(t, err)
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		element := n.Data
		for _, a := range n.Attr {
			element += " " + a.Key
		}
		out = append(out, element)
	}
	return out
}

// A page with hostile texts has the same elements and attributes as one with harmless
// names.
func TestHTMLOfHostileText(t *testing.T) {
	page := func(text string) []byte {
		r := fixed(t)
		root := certtest.New(t, nil, strings.ToValidUTF8(text, "é"), certtest.Authority, certtest.Dates(r.Now.Add(-time.Hour), r.Now.Add(300*certtest.Day)))
		r.Rows = append(r.Rows,
			audit.Row{Subject: audit.Subject{Kind: "file", Place: text, Cert: certtest.Seen(root.Cert)}, State: "OK", Judged: r.Now, Also: []string{text}, Accepted: []string{text}},
			audit.Row{Subject: audit.Subject{Kind: "file", Place: text, Err: errors.New(text)}, State: "ERROR", Judged: r.Now})
		r.Stale, r.Policy = []string{text}, []string{text}
		var b bytes.Buffer
		certtest.Must(t, r.Render("html", &b, 0))
		return b.Bytes()
	}
	want := shape(t, page("harmless"))
	for _, text := range []string{
		"<script>alert(1)</script>", "</script><script>alert(1)//", `" onmouseover="alert(1)`, "' onload='alert(1)", "</title><img src=x onerror=alert(1)>",
		"javascript:alert(1)", "]]><svg onload=alert(1)>", "<!-- ", "</style></table></svg><p>", "a\x1b[31m\x07\x00b", "\u202egpj.exe\u2066", "{{.}}`${1}`", "caf\xe9",
	} {
		b := page(text)
		if got := shape(t, b); !slices.Equal(got, want) {
			t.Errorf("%q makes other elements", text)
		}
		if i := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == '\u202e' || r == '\u2066' }); i >= 0 {
			t.Errorf("%q: %q", text, b[max(0, i-20):i+20])
		}
		if bytes.Contains(b, []byte("ZgotmplZ")) {
			t.Errorf("%q: a place that takes no text", text)
		}
	}
}

var drawn = regexp.MustCompile(`translate\((\d+) \d+\)"><title>(?:(\d+) certificates)?[^<]*</title><path d="M-(\d+) 0A`)

// The marks of a timeline do not overlap, and together they stand for all rows.
func TestTimelineOfMany(t *testing.T) {
	const rows = 3000
	var b bytes.Buffer
	out, err := report.New("html", &b, report.Terminal{})
	certtest.Must(t, err)
	for i := range rows {
		cert := certtest.Seen(certtest.New(t, nil, "x", certtest.Lives(time.Hour, 2000*certtest.Day)).Cert)
		left := time.Duration(float64(time.Hour) * math.Pow(20_000, float64(i)/rows))
		certtest.Must(t, out.Row(&audit.Row{Subject: audit.Subject{Kind: "file", Place: fmt.Sprintf("%04d", i), Cert: cert}, State: "OK", Judged: cert.X509().NotAfter.Add(-left)}))
	}
	certtest.Must(t, out.End(&audit.Summary{Now: time.Now(), Certificates: rows}))
	for _, picture := range strings.Split(b.String(), "<svg ")[1:] {
		sum, end, marks := 0, 0, drawn.FindAllStringSubmatch(picture, -1)
		for _, m := range marks {
			x, _ := strconv.Atoi(m[1])
			n, _ := strconv.Atoi(m[2])
			radius, _ := strconv.Atoi(m[3])
			if x-radius < end {
				t.Errorf("a mark begins at %d, and the one before it ends at %d", x-radius, end)
			}
			sum, end = sum+max(1, n), x+radius
		}
		if sum != rows || len(marks) < 5 {
			t.Errorf("%d marks for %d rows, want %d", len(marks), sum, rows)
		}
	}
}

func TestVerdict(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	leaf := func(from, to time.Duration) audit.Subject {
		return audit.Subject{Kind: "file", Place: "x", Cert: certtest.Seen(certtest.New(t, root, "x", certtest.Lives(from, from+to)).Cert)}
	}
	for _, c := range []struct {
		rows audittest.Static
		want string
	}{
		{nil, "No certificate was found"},
		{audittest.Static{leaf(time.Hour, 23*time.Hour)}, "The one certificate is fine"},
		{audittest.Static{leaf(time.Hour, 23*time.Hour), leaf(time.Hour, 20*time.Hour)}, "All 2 certificates are fine"},
		{audittest.Static{{Kind: "file", Place: "x", Err: errors.New("cut off")}}, "1 place could not be checked"},
		{audittest.Static{leaf(48*time.Hour, -time.Hour)}, "1 certificate has expired"},
		{audittest.Static{leaf(48*time.Hour, -time.Hour), leaf(48*time.Hour, -time.Minute), leaf(340*certtest.Day, 6*certtest.Day-time.Minute)}, "2 certificates have expired, 1 expires within 6 days"},
		{audittest.Static{leaf(20*time.Hour, 4*time.Hour)}, "1 certificate is overdue for renewal"},
	} {
		out := &audittest.Report{}
		_, err := audit.Run(t.Context(), audit.Config{Sources: []audit.Source{c.rows}, Report: out, Disable: []string{"same-key"}})
		certtest.Must(t, err)
		var b bytes.Buffer
		certtest.Must(t, out.Render("html", &b, 0))
		_, rest, _ := strings.Cut(b.String(), "<h1>")
		if got, _, _ := strings.Cut(rest, "</h1>"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// A page of a forecast says when it was made and what it is of, counts a
// certificate in three places once, and its cards add up.
func TestHTMLForecast(t *testing.T) {
	now := certtest.Doomsday()
	root := certtest.New(t, nil, "Test Root", certtest.Authority, certtest.Dates(now.Add(-100*certtest.Day), now.Add(3650*certtest.Day)), numbered(1))
	leaf := func(n int64, cn string, left time.Duration) *cert.Certificate {
		return certtest.Seen(certtest.New(t, root, cn, certtest.Dates(now.Add(-20*time.Hour), now.Add(left)), numbered(n)).Cert)
	}
	late, later, fine := leaf(2, "ingester", 4*time.Hour), leaf(3, "storage", 4*time.Hour+30*time.Minute), leaf(4, "query", 30*time.Hour)
	bundle := certtest.SeenAll([]*certtest.Pair{root})
	at := func(kind, place string, c *cert.Certificate) audit.Subject {
		return audit.Subject{Kind: kind, Place: place, Cert: c, Bundle: bundle}
	}
	r, err := audittest.Judge(t.Context(), audit.Config{
		Now: certtest.Doomsday, Clock: func() time.Time { return now.Add(-20 * time.Hour) },
		About: audit.About{Host: "host", Command: []string{"artstore-pki", "audit", "--at=+20h", "state"}, Targets: []string{"state"}, Record: "state/ca", Bundle: "ca.crt"},
		Sources: []audit.Source{audittest.Static{
			at("file", "/a/tls.crt", late), at("file", "/b/tls.crt", late), at("endpoint", "ingester:1", late), at("file", "/c/tls.crt", later), at("file", "/d/tls.crt", fine),
			{Kind: "file", Place: "/e", Err: errors.New("cut off")},
		}},
	})
	certtest.Must(t, err)
	var b bytes.Buffer
	certtest.Must(t, r.Render("html", &b, 0))
	golden(t, "forecast.html", varying.ReplaceAll(b.Bytes(), []byte("$1$2$3$4…")))
	for _, want := range []string{
		"<title>Forecast: 2 certificates are overdue for renewal", "Forecast: judged as of 2026-03-01 12:00:00 UTC, made 2026-02-28 16:00:00 UTC",
		"Of those overdue, ingester is the first to end, in 4h.", "<b>2</b> critical", "<b>1</b> fine", "<b>1</b> places not read", "and 2 more", "Host: host", "--at=&#43;20h",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if s := r.Summary; s.Certificates != 3 || s.Crit+s.Warn+s.Fine+s.Partial != 3 {
		t.Errorf("%+v", s)
	}
}

// Documents that have a finding are not counted as certificates.
func TestHTMLCountsDocuments(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	stale := certtest.Block("X509 CRL", audittest.CRL(t, root, -2*certtest.Day, -certtest.Day))
	r := audittest.Run(t, audittest.Paths(certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "a.crl": stale, "b.crl": stale})))
	var b bytes.Buffer
	certtest.Must(t, r.Render("html", &b, 0))
	if _, group, _ := strings.Cut(b.String(), ">crl-expired<"); !strings.Contains(group[:min(len(group), 200)], "2 documents") {
		t.Errorf("the group counts otherwise: %.200s", group)
	}
	for _, want := range []string{"<b>2</b> other documents", "<b>2</b> of these critical"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
