package report_test

import (
	"bytes"
	"crypto/tls"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"github.com/artstore/artstore-pki/audit/report"
)

// noEnd returns the date of a certificate without an end (RFC 5280 §4.1.2.5).
func noEnd() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// No length of time saturates, as time.Duration does after 292 years.
func TestWithoutEnd(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority, certtest.Dates(certtest.Doomsday().Add(-certtest.Day), noEnd()))
	leaf := certtest.New(t, root, "forever", certtest.Dates(certtest.Doomsday().Add(-certtest.Day), noEnd()))
	subjects := audittest.Static{
		{Kind: "file", Place: "/leaf", Cert: certtest.Seen(leaf.Cert), Bundle: certtest.SeenAll([]*certtest.Pair{root})},
		{Kind: "endpoint", Place: "h:1", Cert: certtest.Seen(leaf.Cert), Bundle: certtest.SeenAll([]*certtest.Pair{root}), TLS: &tls.ConnectionState{Version: tls.VersionTLS13}},
	}
	const left, days = "251629934399", "2912383d"
	r, err := audittest.Judge(t.Context(), audit.Config{Now: certtest.Doomsday, Sources: []audit.Source{subjects}})
	certtest.Must(t, err)
	for _, format := range report.Formats() {
		var b bytes.Buffer
		certtest.Must(t, r.Render(format, &b, 0))
		var wants []string
		switch format {
		case "json", "ndjson":
			wants = []string{`"seconds_left":` + left, `"not_after":"9999-12-31T23:59:59Z"`, "it lives 2912384d"}
		case "csv":
			wants = []string{"," + left + ","}
		case "prom":
			wants = []string{" 253402300799\n"}
		case "table", "wide":
			wants = []string{days, "it lives 2912384d"}
		case "text":
			wants = []string{days + " left", "it lives 2912384d"}
		case "html":
			wants = []string{days, ">1000 y<"}
		}
		for _, want := range wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: no %s in\n%.2000s", format, want, b.String())
			}
		}
		if strings.Contains(b.String(), "9223372036") || strings.Contains(b.String(), "106751") {
			t.Errorf("%s: saturated", format)
		}
	}
	// A third of such a life is more than 292 years too.
	r, err = audittest.Judge(t.Context(), audit.Config{Now: func() time.Time { return time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC) }, WarnShare: 0.33, CritShare: 0.01, Only: []string{"expiring"}, Sources: []audit.Source{subjects}})
	certtest.Must(t, err)
	if r.Rows[0].State != "WARN" || r.Rows[0].Findings[0].Text != "expires in 365241d" {
		t.Errorf("%s %+v", r.Rows[0].State, r.Rows[0].Findings)
	}
}

// A date that RFC 3339 cannot write does not end the report. With an offset, the last
// moment of the year 9999 is in the year 10000 in UTC.
func TestYear10000(t *testing.T) {
	dated := func(from, to string) []byte {
		at := func(text string) asn1.RawValue {
			return asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(text)}
		}
		name := asn1.RawValue{FullBytes: []byte{0x30, 0}}
		tbs, err := asn1.Marshal(struct {
			Serial            int
			Algorithm, Issuer asn1.RawValue
			Validity          struct{ From, To asn1.RawValue }
			Subject           asn1.RawValue
		}{1, name, name, struct{ From, To asn1.RawValue }{at(from), at(to)}, name})
		certtest.Must(t, err)
		der, err := asn1.Marshal([]asn1.RawValue{{FullBytes: tbs}})
		certtest.Must(t, err)
		return der
	}
	c, reason := cert.Parse(dated("00000101000000+0700", "99991231235959-0700"))
	if c == nil || reason == nil {
		t.Fatal(c, reason)
	}
	r := audittest.Run(t, audittest.Static{{Kind: "file", Place: "a", Cert: c, Err: reason}})
	for _, format := range report.Formats() {
		var b bytes.Buffer
		certtest.Must(t, r.Render(format, &b, 0))
		if format == "json" && (!json.Valid(b.Bytes()) || !strings.Contains(b.String(), `"not_after":"9999-12-31T23:59:59Z"`) || !strings.Contains(b.String(), `"not_before":"0000-01-01T00:00:00Z"`)) {
			t.Error(b.String())
		}
	}
}

// A name of 64 KiB makes no format for people long, and is whole in JSON.
func TestLongNames(t *testing.T) {
	const long = 64 << 10
	name := strings.Repeat("n", long-1) + "!"
	root := certtest.New(t, nil, name, certtest.Authority)
	leaf := certtest.New(t, root, name, certtest.Named(strings.Repeat("d", long), "b"))
	hostile := audit.Subject{Kind: "file", Place: "/" + name, Cert: certtest.Seen(leaf.Cert), Bundle: certtest.SeenAll([]*certtest.Pair{root}), Err: errors.New(name)}
	r := audittest.Run(t, audittest.Static{
		hostile, {Kind: "file", Place: "/x", Cert: certtest.Seen(leaf.Cert), Chain: certtest.SeenAll([]*certtest.Pair{root})},
		{Kind: "file", Place: "/ca", Cert: certtest.Seen(root.Cert)}, {Kind: "endpoint", Place: name, Err: errors.New(name)},
	})
	for _, format := range report.Formats() {
		var b bytes.Buffer
		certtest.Must(t, r.Render(format, &b, 0))
		size := b.Len()
		switch format {
		case "json", "ndjson":
			if !strings.Contains(b.String(), `"name":"`+name+`"`) {
				t.Errorf("%s: the name is not whole", format)
			}
			continue
		case "pem": // the certificates themselves are whole
			for block, rest := pem.Decode(b.Bytes()); block != nil; block, rest = pem.Decode(rest) {
				size -= len(pem.EncodeToMemory(block))
			}
		case "html": // its style and script
			size -= 40 << 10
		}
		if size > 32<<10 {
			t.Errorf("%s: %d bytes for %d rows", format, size, len(r.Rows))
		}
	}
}

// The series of unread places and of findings have bounded labels, and no series comes
// twice.
func TestPrometheusNames(t *testing.T) {
	ca := certtest.New(t, nil, "ca", certtest.Authority)
	c := certtest.Seen(certtest.New(t, ca, "x", certtest.Lives(time.Hour, 900*certtest.Day)).Cert)
	gone := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}
	twice := audittest.Static{
		{Kind: "file", Place: "/a\x1b", Cert: c}, {Kind: "file", Place: "/a\x1b", Cert: c},
		{Kind: "file", Place: "/gone", Err: gone}, {Kind: "file", Place: "/gone", Err: gone}, {Kind: "file", Place: "/odd", Err: errors.New("anything")},
	}
	var b bytes.Buffer
	certtest.Must(t, audittest.Run(t, twice).WritePrometheus(&b))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(b.Bytes()))
	certtest.Must(t, err)
	if n := len(families["artstore_audit_place_unread"].GetMetric()); n != 2 {
		t.Errorf("%d places that were not read", n)
	}
	for _, want := range []string{
		`artstore_audit_place_unread{kind="file",place="/gone",block="0",reason="absent"} 1`, `reason="other"`, "artstore_audit_chains_not_judged 2\n",
		`artstore_audit_certificate_finding{kind="file",place="/a\\u001b",block="0",name="x",fingerprint_sha256="`, `",check="long-lived",severity="warn"} 1`, "artstore_audit_complete 1\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// An algorithm that Go has no name for is named by its object identifier.
func TestUnknownAlgorithm(t *testing.T) {
	c := postQuantum(t)
	r := audittest.Run(t, audittest.Static{{Kind: "file", Place: "/pq.crt", Cert: c}})
	for _, format := range []string{"json", "ndjson", "csv", "wide", "text", "html"} {
		var b bytes.Buffer
		certtest.Must(t, r.Render(format, &b, 0))
		if n := strings.Count(b.String(), "ML-DSA-44"); n < 2 {
			t.Errorf("%s: key and signature are named %d times:\n%.1000s", format, n, b.String())
		}
	}
}

// postQuantum returns a certificate of ML-DSA-44 (RFC 9881) with a key of the right
// length.
func postQuantum(t *testing.T) *cert.Certificate {
	t.Helper()
	p := certtest.New(t, nil, "post-quantum")
	id := dertest.Sequence(dertest.OID(2, 16, 840, 1, 101, 3, 4, 3, 17)) // ML-DSA-44, RFC 9881
	made := dertest.TakeApart(t, p.Cert.RawTBSCertificate)
	made[dertest.Algorithm], made[dertest.PublicKey] = id, dertest.Sequence(id, dertest.Element(der.BIT_STRING, make([]byte, 1+1312)))
	c, err := cert.Parse(made.Seal(t, p, id))
	certtest.Must(t, err)
	return c
}
