package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
)

// TestMain fixes the time zone: tables show local times, and golden ones must be the same everywhere.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	m.Run()
}

// fixed returns a report about certificates with fixed dates, judged at a fixed time.
func fixed(t *testing.T) *audittest.Report {
	t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	root := certtest.New(t, nil, "Test Root", certtest.Authority, certtest.Dates(now.Add(-100*certtest.Day), now.Add(3650*certtest.Day)))
	intermediate := certtest.New(t, root, "Test Intermediate", certtest.Authority, certtest.Dates(now.Add(-100*certtest.Day), now.Add(3650*certtest.Day)))
	leaf := func(cn string, from, to time.Duration) audit.Subject {
		p := certtest.New(t, intermediate, cn, certtest.Dates(now.Add(from), now.Add(to)))
		return audit.Subject{Kind: "file", Place: "/etc/artstore/" + cn + "/tls.crt", Cert: certtest.Seen(p.Cert), Chain: certtest.SeenAll([]*certtest.Pair{intermediate})}
	}
	soon := leaf("query-module", -340*certtest.Day, 25*certtest.Day)
	late := leaf("ingester", -20*time.Hour, 4*time.Hour)
	late.Key = &cert.KeyFile{Path: "/etc/artstore/ingester/tls.key", Mode: 0o644, Fits: true}
	late.Block = 2
	r, err := audittest.Judge(t.Context(), audit.Config{
		Now: func() time.Time { return now },
		Sources: []audit.Source{audittest.Static{
			leaf("admin-module", -time.Hour, 23*time.Hour), soon, late,
			{Kind: "endpoint", Place: "storage:8010", Err: errors.New("no answer within 5s")},
			{Kind: "file", Place: "/a/ca.crt", Cert: certtest.Seen(root.Cert)}, {Kind: "file", Place: "/b/ca.crt", Cert: certtest.Seen(root.Cert)},
		}},
	})
	certtest.Must(t, err)
	return r
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	certtest.Must(t, fixed(t).WriteTable(&b, 0))
	const want = `STATE    LEFT   ENDS              NAME          PLACE
OVERDUE  4h     2026-03-01 16:00  ingester      /etc/artstore/ingester/tls.crt#2
         renewal overdue: past 0.80 of its life
         others may use its key: /etc/artstore/ingester/tls.key has mode 0644
ERROR    -      -                 -             storage:8010
         no answer within 5s
WARN     25d    2026-03-26 12:00  query-module  /etc/artstore/query-module/tls.crt
         expires in 25d
OK       23h    2026-03-02 11:00  admin-module  /etc/artstore/admin-module/tls.crt
OK       3650d  2036-02-27 12:00  Test Root     /a/ca.crt and 1 more

renewal-overdue: is the program that renews it running, and does it reach the authority? (docs/architecture.md, Renewal)
expiring: renew it (docs/architecture.md, Renewal)
key-readable: chmod 600, and a new key if others may have read it (docs/threat-model.md, A service's key)
4 certificates: 2 fine, 1 to watch, 1 critical; 1 place could not be read; 3 chains not judged: no trust bundle
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	b.Reset()
	certtest.Must(t, fixed(t).WriteTable(&b, 55))
	for line := range strings.Lines(b.String()) {
		if cells := strings.Fields(line); len(cells) > 0 && strings.Contains("OVERDUE WARN OK", cells[0]) && len([]rune(line)) > 56 {
			t.Errorf("%d wide: %s", len([]rune(line)), line)
		}
	}
	if !strings.Contains(b.String(), "…") {
		t.Error("nothing was cut")
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	certtest.Must(t, fixed(t).WriteJSON(&b))
	var got struct {
		SchemaVersion int `json:"schema_version"`
		Summary       map[string]int
		Rows          []struct {
			State, Place, Error, Name, Serial string
			Findings                          []map[string]string
			Also                              []string
			RenewsFrom                        time.Time `json:"renews_from"`
			NotAfter                          time.Time `json:"not_after"`
			SecondsLeft                       int64     `json:"seconds_left"`
		}
	}
	certtest.Must(t, json.Unmarshal(b.Bytes(), &got))
	if got.SchemaVersion != 2 || got.Summary["crit"] != 1 || got.Summary["warn"] != 1 || got.Summary["places_not_read"] != 1 || got.Summary["certificates"] != 4 {
		t.Errorf("%+v", got.Summary)
	}
	first := got.Rows[0]
	if first.State != "OVERDUE" || first.Name != "ingester" || first.SecondsLeft != 4*3600 || first.RenewsFrom.IsZero() || first.NotAfter.Location() != time.UTC {
		t.Errorf("%+v", first)
	}
	if f := first.Findings[0]; f["check"] != "renewal-overdue" || f["severity"] != "crit" || f["remedy"] == "" || f["cites"] == "" {
		t.Errorf("%+v", f)
	}
	if got.Rows[1].Error != "no answer within 5s" || got.Rows[1].Serial != "" || got.Rows[4].Also[0] != "/b/ca.crt" {
		t.Errorf("%+v", got.Rows)
	}
	if strings.Contains(b.String(), `"findings": null`) || strings.Contains(b.String(), `"names": null`) {
		t.Error("an empty list is null")
	}
}

func TestExplain(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t, certtest.Lives(time.Hour, certtest.Day))
	year := certtest.New(t, intermediate, "by hand")
	dir := certtest.Write(t, map[string][]byte{
		"tls.crt": certtest.Encode(leaf, intermediate), "tls.key": leaf.KeyPEM(t), "ca.crt": certtest.Encode(root), "x/svc.crt": certtest.Encode(year), "x/bad.crt": nil,
	})
	var b bytes.Buffer
	certtest.Must(t, audittest.Run(t, audittest.Paths(dir)).Explain(&b))
	for _, want := range []string{
		"/tls.crt: OK\n  name         ingester (end entity)\n", "  names        ingester, localhost, 127.0.0.1\n",
		"from 0.60 to 0.70 of its life of 23h59m", "; the private key in " + dir + "/tls.key (mode 0600) fits\n", "  usages       server, client\n",
		"  chain        ingester, until ", "\n               └ Test Intermediate, until ", "\n                 └ Test Root, until ", ", in the trust bundle\n",
		"  findings     none\n", "/x/svc.crt: CRIT\n", "by whoever made it: it lives 36", "└ Test Intermediate, not here\n", "  finding      chain-incomplete: ",
		"/x/bad.crt: ERROR\n  error        the file is empty\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	// An authority that ends first is the first row, and left to the tree: nothing is printed for it.
	brief := certtest.New(t, nil, "Brief Root", certtest.Authority, certtest.Lives(0, 100*certtest.Day))
	dir2 := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(brief), "svc.crt": certtest.Encode(certtest.New(t, brief, "svc"))})
	b.Reset()
	certtest.Must(t, audittest.Run(t, audittest.Paths(dir2)).Explain(&b))
	if !strings.HasPrefix(b.String(), dir2+"/svc.crt: WARN\n") {
		t.Errorf("begins with %.60q", b.String())
	}
	b.Reset()
	certtest.Must(t, audittest.Run(t, audittest.Paths(dir+"/ca.crt")).Explain(&b))
	if !strings.Contains(b.String(), "Test Root (certificate authority)") || !strings.Contains(b.String(), "by the authority's operator") {
		t.Errorf("a bundle alone:\n%s", b.String())
	}
}

// A stranger chooses the names in a certificate. None of their bytes may control a
// terminal.
func TestHostileNames(t *testing.T) {
	evil := "a\x1b[2J\x1b]0;t\a\nOK  1d\u202e\u2066"
	p := certtest.New(t, nil, evil, certtest.Authority, certtest.Lives(time.Hour, 8*certtest.Day))
	leaf := certtest.New(t, p, evil, certtest.Lives(time.Hour, time.Hour), certtest.Named())
	u, err := url.Parse("spiffe://a/b%0a")
	certtest.Must(t, err)
	leaf.Cert.URIs, leaf.Cert.DNSNames = []*url.URL{u}, []string{evil}
	leaf.Cert.Subject.CommonName = ""
	r := audittest.Run(t, audittest.Static{
		{Kind: "file", Place: evil, Cert: certtest.Seen(leaf.Cert), Chain: certtest.SeenAll([]*certtest.Pair{p}), Bundle: certtest.SeenAll([]*certtest.Pair{certtest.New(t, nil, "r", certtest.Authority)}), Key: &cert.KeyFile{Path: evil}},
		{Kind: "file", Place: evil, Err: errors.New(evil)},
	})
	for _, write := range []func(*bytes.Buffer) error{
		func(b *bytes.Buffer) error { return r.WriteTable(b, 0) },
		func(b *bytes.Buffer) error { return r.WriteTable(b, 40) },
		func(b *bytes.Buffer) error { return r.Explain(b) },
		func(b *bytes.Buffer) error { return r.WriteJSON(b) },
	} {
		var b bytes.Buffer
		certtest.Must(t, write(&b))
		if i := strings.IndexFunc(b.String(), func(r rune) bool { return r != '\n' && unicode.IsControl(r) }); i >= 0 {
			t.Errorf("a control character: %q", b.String()[max(0, i-20):])
		}
	}
}

// Passwords in addresses are not shown, because people copy addresses of databases with
// them.
func TestAboutWithoutPasswords(t *testing.T) {
	const address = "postgres://user:secret1@host:1/db?password=secret2"
	for _, format := range report.Formats() {
		var out bytes.Buffer
		report, err := report.New(format, &out, report.Terminal{})
		certtest.Must(t, err)
		_, err = audit.Run(t.Context(), audit.Config{Report: report, About: audit.About{Command: []string{"audit", address}, Targets: []string{address}}})
		certtest.Must(t, err)
		if strings.Contains(out.String(), "secret") {
			t.Errorf("%s: %s", format, out.String())
		}
		if format == "json" && strings.Count(out.String(), "postgres://host:1") != 2 {
			t.Errorf("the address is not there: %s", out.String())
		}
	}
}
