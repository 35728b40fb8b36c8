package report_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

func TestNDJSON(t *testing.T) {
	r := fixed(t)
	var lines, whole bytes.Buffer
	certtest.Must(t, r.WriteNDJSON(&lines))
	certtest.Must(t, r.WriteJSON(&whole))
	var report struct{ Rows []map[string]any }
	certtest.Must(t, json.Unmarshal(whole.Bytes(), &report))
	n := 0
	for line := range bytes.Lines(lines.Bytes()) {
		var row map[string]any
		certtest.Must(t, json.Unmarshal(line, &row))
		if row["complete"] != nil {
			if row["complete"] != true || row["summary"] == nil || n != len(report.Rows) {
				t.Errorf("%s", line)
			}
			n++
			continue
		}
		if row["schema_version"] != 2. || row["judged_at"] != "2026-03-01T12:00:00Z" {
			t.Errorf("%s", line)
		}
		delete(row, "schema_version")
		delete(row, "judged_at")
		if got, want := mustJSON(t, row), mustJSON(t, report.Rows[n]); got != want {
			t.Errorf("line %d: %s, want %s", n+1, got, want)
		}
		n++
	}
	if n != len(r.Rows)+1 {
		t.Errorf("%d lines for %d rows", n, len(r.Rows))
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	certtest.Must(t, err)
	return string(b)
}

func TestCSV(t *testing.T) {
	var b bytes.Buffer
	certtest.Must(t, fixed(t).WriteCSV(&b))
	if lines := strings.Count(b.String(), "\r\n"); lines != 6 || strings.Count(b.String(), "\n") != lines {
		t.Errorf("%d lines by RFC 4180 in %q", lines, b.String())
	}
	records, err := csv.NewReader(&b).ReadAll()
	certtest.Must(t, err)
	var got []string
	for _, r := range records {
		got = append(got, strings.Join(r[:11], "|"))
	}
	const want = `state|seconds_left|not_before|not_after|name|names|kind|place|block|also|findings
OVERDUE|14400|2026-02-28T16:00:00Z|2026-03-01T16:00:00Z|ingester|ingester localhost 127.0.0.1|file|/etc/artstore/ingester/tls.crt|2||renewal-overdue key-readable not-judged
ERROR||||||endpoint|storage:8010|0||
WARN|2160000|2025-03-26T12:00:00Z|2026-03-26T12:00:00Z|query-module|query-module localhost 127.0.0.1|file|/etc/artstore/query-module/tls.crt|0||expiring not-judged
OK|82800|2026-03-01T11:00:00Z|2026-03-02T11:00:00Z|admin-module|admin-module localhost 127.0.0.1|file|/etc/artstore/admin-module/tls.crt|0||not-judged
OK|315360000|2025-11-21T12:00:00Z|2036-02-27T12:00:00Z|Test Root||file|/a/ca.crt|0|/b/ca.crt|`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
	if records[2][11] != "no answer within 5s" || len(records[1][15]) != 64 || records[1][14] != "false" || records[5][14] != "true" {
		t.Errorf("%q", records)
	}
}

func TestPrometheus(t *testing.T) {
	got := audittest.Metrics(t, fixed(t))
	now := float64(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Unix())
	want := map[string]float64{
		`certificates`: 4, `unchecked`: 1, `judged_timestamp_seconds`: now,
		`findings{check="renewal-overdue", severity="crit"}`: 1,
		`findings{check="key-readable", severity="warn"}`:    1,
		`findings{check="expiring", severity="warn"}`:        1,
		`findings{check="expiring", severity="crit"}`:        0,
		`findings{check="weak-key", severity="crit"}`:        0,

		`not_after_timestamp_seconds{block="2", kind="file", name="ingester", place="/etc/artstore/ingester/tls.crt"}`:  now + 4*3600,
		`not_before_timestamp_seconds{block="2", kind="file", name="ingester", place="/etc/artstore/ingester/tls.crt"}`: now - 20*3600,

		`renewal_window_start_timestamp_seconds{block="2", kind="file", name="ingester", place="/etc/artstore/ingester/tls.crt"}`: now - 20136,
		`renewal_overdue_timestamp_seconds{block="2", kind="file", name="ingester", place="/etc/artstore/ingester/tls.crt"}`:      now - 2868,
	}
	for id, value := range want {
		if v, ok := got[id]; !ok || math.Abs(v-value) > 0 {
			t.Errorf("%s: %v %v, want %v; there are %v", id, v, ok, value, got)
		}
	}
	if n := 2*4 + 2*2 + len(audit.Checks()) + 2 + 6 + 1; unfound(got) != n {
		t.Errorf("%d series, want %d", len(got), n)
	}
	// A place that was named twice is there once, and what differs in bytes that cannot be shown, too.
	p := certtest.New(t, nil, "x")
	r := audittest.Run(t, audittest.Static{{Kind: "file", Place: "a\xff", Cert: certtest.Seen(p.Cert)}, {Kind: "file", Place: "a\xfe", Cert: certtest.Seen(p.Cert)}, {Kind: "file", Place: "b", Cert: certtest.Seen(p.Cert)}, {Kind: "file", Place: "b", Cert: certtest.Seen(p.Cert)}})
	if got := audittest.Metrics(t, r); unfound(got) != 2*2+len(audit.Checks())+6 {
		t.Errorf("%v", got)
	}
}

// unfound counts the series that do not depend on the table of checks.
func unfound(series map[string]float64) (n int) {
	for id := range series {
		if !strings.HasPrefix(id, "certificate_finding{") {
			n++
		}
	}
	return n
}

// A text in a certificate or a path stays text in each format.
func TestInjection(t *testing.T) {
	for _, evil := range []string{
		`=cmd|' /C calc'!A0`, "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", `a","b` + "\r\nOK,1", "a\"} 1\nevil 1\n", `\`, `\"`, "<script>alert(1)</script>",
		"\xff\xfe", "\x1b[2J\x9b31m", "a\u2028b", "a\u202eb", "#", "OK\n", "",
	} {
		r := audittest.Run(t, audittest.Static{{Kind: "file", Place: evil, Err: errors.New(evil)}, {Kind: "file", Place: evil, Cert: certtest.Seen(certtest.New(t, nil, "x", called(evil)).Cert)}})
		var asCSV, asNDJSON bytes.Buffer
		certtest.Must(t, r.WriteCSV(&asCSV))
		certtest.Must(t, r.WriteNDJSON(&asNDJSON))
		records, err := csv.NewReader(&asCSV).ReadAll()
		certtest.Must(t, err)
		if len(records) != 3 {
			t.Errorf("%q: %d lines of CSV", evil, len(records))
		}
		for _, cell := range append(records[1][4:], records[2][4:]...) {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") || strings.ContainsAny(cell, "\x1b\n\r") {
				t.Errorf("%q: cell %q", evil, cell)
			}
		}
		if text := asNDJSON.String(); strings.Count(text, "\n") != 3 || strings.ContainsAny(text, "\x1b<>") {
			t.Errorf("%q: NDJSON %q", evil, text)
		}
		got := audittest.Metrics(t, r)
		if unfound(got) != 2+len(audit.Checks())+6+1 || got["evil"] != 0 {
			t.Errorf("%q: %v", evil, got)
		}
	}
}

// called sets a common name that may be any text.
func called(name string) certtest.Spec {
	return func(c *x509.Certificate) { c.Subject.CommonName = strings.ToValidUTF8(name, "?"); c.DNSNames = nil }
}

// Contract: whatever a name is, its label is valid UTF-8 on one line and parses back to something.
func FuzzPrometheus(f *testing.F) {
	f.Add("a\"} 1\nb 2\n")
	f.Add(`\`)
	p := certtest.New(f, nil, "x")
	f.Fuzz(func(t *testing.T, place string) {
		r := audittest.Run(t, audittest.Static{{Kind: "file", Place: place, Cert: certtest.Seen(p.Cert)}})
		if got := audittest.Metrics(t, r); unfound(got) != 2+len(audit.Checks())+6 {
			t.Errorf("%q: %v", place, got)
		}
	})
}

// The page about the formats names every field, metric, label and check.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/audit-report.md")
	certtest.Must(t, err)
	documented := func(word string) {
		t.Helper()
		if !strings.Contains(string(page), "`"+word+"`") {
			t.Errorf("docs/audit-report.md does not say what `%s` is", word)
		}
	}
	r := fixed(t)
	r.Rows[0].TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CurveID: tls.X25519MLKEM768}
	var asJSON, asMetrics bytes.Buffer
	certtest.Must(t, r.WriteJSON(&asJSON))
	certtest.Must(t, r.WritePrometheus(&asMetrics))
	var all any
	certtest.Must(t, json.Unmarshal(asJSON.Bytes(), &all))
	eachKey(all, documented)
	for _, m := range regexp.MustCompile(`(?m)^artstore\w+|(\w+)="`).FindAllStringSubmatch(asMetrics.String(), -1) {
		documented(cmp.Or(m[1], m[0]))
	}
	for _, c := range audit.Checks() {
		documented(c.Check)
	}
}

func eachKey(v any, visit func(string)) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			eachKey(one, visit)
		}
	case map[string]any:
		for key, one := range v {
			visit(key)
			eachKey(one, visit)
		}
	}
}
