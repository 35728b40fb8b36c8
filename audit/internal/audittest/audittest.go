// Package audittest runs whole audits for the tests of the rooms of package audit, and starts
// servers for them.
//
//	dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(leaf)})
//	r := audittest.Run(t, audittest.Paths(dir))
//	audittest.Want(t, audittest.States(t, r, dir), map[string]string{"tls.crt": "OK"})
//
// A test of a room uses it where the contract of the room is what becomes of its
// input in a report. Certificates come from package certtest.
package audittest

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/secret"
)

// JWT returns a token (RFC 7519 §3) whose signature is not computed: readers of claims
// do not verify it.
func JWT(header, claims, signature string) []byte {
	part := base64.RawURLEncoding.EncodeToString
	return []byte(part([]byte(header)) + "." + part([]byte(claims)) + "." + part([]byte(signature)) + "\n")
}

// Serve does TLS handshakes with all clients until the test ends.
func Serve(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	// A client may refuse the server: that is what tests want to see.
	return Accept(t, func(c net.Conn) { _ = tls.Server(c, config).HandshakeContext(t.Context()) })
}

// Accept listens on a free port until the test ends. It calls handle for each
// connection, in a goroutine of its own, and closes the connection afterwards.
func Accept(t *testing.T, handle func(net.Conn)) (address string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	certtest.Must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				handle(c)
				_ = c.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

// CRL returns a revocation list (RFC 5280 §5) in DER that by has signed. It is valid
// between two moments, counted from now, and names the certificates that are given.
func CRL(t testing.TB, by *certtest.Pair, from, to time.Duration, revoked ...*certtest.Pair) []byte {
	t.Helper()
	issuer := *by.Cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	tpl := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now().Add(from), NextUpdate: time.Now().Add(to)}
	for _, p := range revoked {
		tpl.RevokedCertificateEntries = append(tpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: p.Cert.SerialNumber, RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tpl, &issuer, by.Key)
	certtest.Must(t, err)
	return der
}

// SecretYAML returns a Secret as kubectl prints it. Entries are keys and values in turn.
func SecretYAML(name string, entries ...string) string {
	out := "apiVersion: v1\ndata:\n"
	for i := 0; i < len(entries); i += 2 {
		out += "  " + entries[i] + ": " + entries[i+1] + "\n"
	}
	return out + "kind: Secret\nmetadata:\n  name: " + name + "\n  namespace: prod\ntype: kubernetes.io/tls\n"
}

// Metrics parses the report in the format of Prometheus and returns its series, without
// the prefix and the fingerprints. It fails the test if a series comes twice.
func Metrics(t *testing.T, r *Report) map[string]float64 {
	t.Helper()
	var b bytes.Buffer
	certtest.Must(t, r.WritePrometheus(&b))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(&b)
	certtest.Must(t, err)
	out := map[string]float64{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			labels := model.Metric{model.MetricNameLabel: model.LabelValue(strings.TrimPrefix(name, "artstore_audit_"))}
			for _, l := range m.GetLabel() {
				if l.GetName() != "fingerprint_sha256" {
					labels[model.LabelName(l.GetName())] = model.LabelValue(l.GetValue())
				}
			}
			id := labels.String()
			if _, twice := out[id]; twice {
				t.Errorf("twice: %s", id)
			}
			out[id] = m.GetGauge().GetValue()
		}
	}
	return out
}

// Part is what tests compare of one format.Part.
type Part struct {
	Cert        *cert.Certificate
	Err         error
	Key         crypto.PublicKey
	Place       string // in the file
	Locked, Doc bool
	Twofold     bool // a certificate and a key, or a document and an error
}

// Parts reads a file in any format. The passwords are for stores and keys in it.
func Parts(data []byte, passwords ...string) (out []Part) {
	with := &format.Context{Known: &cert.Cache{}, Documents: true}
	for _, p := range passwords {
		with.Passwords = append(with.Passwords, secret.New(p))
	}
	for _, p := range with.ParseFile("x", data, false) {
		one := Part{Cert: p.Cert, Err: p.Err, Key: p.Key, Doc: p.Document != nil, Locked: p.Locked}
		// Of a list that cannot be read, the dates stand beside the error.
		dates := p.Document != nil && p.Document.What == cert.RevocationList && p.Document.List == nil
		one.Twofold = one.Cert != nil && (one.Key != nil || one.Doc) || one.Doc && one.Err != nil && !dates
		if p.In != nil {
			one.Place, one.Locked = p.In.Object+p.In.Suffix(), p.In.Locked || p.Locked
		}
		out = append(out, one)
	}
	return out
}

// Within runs act, and fails the test if that takes longer than [Patience].
func Within(t *testing.T, what string, act func()) {
	t.Helper()
	start := time.Now()
	act()
	if d := time.Since(start); d > Patience {
		t.Errorf("%s took %v", what, d)
	}
}

// Describe returns parts as one text: names of certificates, "key", and errors.
func Describe(parts []Part) string {
	var out []string
	for _, p := range parts {
		text := strings.TrimSuffix(p.Place+" ", " ")
		switch {
		case p.Cert != nil && p.Err != nil:
			text += " refused"
		case p.Err != nil:
			text += " error: " + p.Err.Error()
		case p.Cert != nil:
			text += " " + p.Cert.X509().Subject.CommonName
		case p.Key != nil:
			text += " key"
		case p.Doc:
			text += " document"
		default:
			text += " something"
		}
		out = append(out, strings.TrimSpace(text))
	}
	return strings.Join(out, ", ")
}

// Patience is a timeout for what must not time out. It is far more than the two seconds that
// a hostile input may take, because tests run under the race detector on busy machines, and
// far below the hours that the input takes if a program does all that it asks for.
const Patience = time.Minute

// Static is a source of subjects that are given.
type Static []audit.Subject

// Collect yields the subjects in their order.
func (s Static) Collect(_ context.Context, yield func(audit.Subject)) {
	for _, one := range s {
		yield(one)
	}
}

// Paths returns the targets of an audit that looks at files and directories only.
func Paths(list ...string) source.Targets { return source.Targets{Names: list} }

// Report is a renderer that keeps all rows, so that a test can look at them and render
// them in several formats.
type Report struct {
	*audit.Summary
	Rows []audit.Row
}

// Row keeps a row.
func (r *Report) Row(row *audit.Row) error { r.Rows = append(r.Rows, *row); return nil }

// End keeps the summary.
func (r *Report) End(sum *audit.Summary) error { r.Summary = sum; return nil }

// Sort puts the rows in the order of reports for people: the worst first.
func (r *Report) Sort() {
	slices.SortStableFunc(r.Rows, func(a, b audit.Row) int {
		return cmp.Or(cmp.Compare(b.Rank(), a.Rank()), a.End().Compare(b.End()), cmp.Compare(a.Place, b.Place))
	})
}

// Render writes the report in a format of package report. The width is that of the
// terminal in columns, 0 if there is none.
func (r *Report) Render(format string, w io.Writer, width int) error {
	out, err := report.New(format, w, report.Terminal{Width: width})
	for i := 0; err == nil && i < len(r.Rows); i++ {
		err = out.Row(&r.Rows[i])
	}
	if err != nil {
		return err
	}
	return out.End(r.Summary)
}

// WriteTable renders the table for people.
func (r *Report) WriteTable(w io.Writer, width int) error { return r.Render("table", w, width) }

// WriteJSON renders one JSON document.
func (r *Report) WriteJSON(w io.Writer) error { return r.Render("json", w, 0) }

// WriteNDJSON renders one JSON document for each line.
func (r *Report) WriteNDJSON(w io.Writer) error { return r.Render("ndjson", w, 0) }

// WriteCSV renders comma-separated values (RFC 4180).
func (r *Report) WriteCSV(w io.Writer) error { return r.Render("csv", w, 0) }

// WritePrometheus renders metrics in the text format of Prometheus.
func (r *Report) WritePrometheus(w io.Writer) error { return r.Render("prom", w, 0) }

// Explain renders the explanation of each row.
func (r *Report) Explain(w io.Writer) error { return r.Render("text", w, 0) }

// Judge runs an audit and returns its sorted report, also after an error. It sets
// cfg.Report.
func Judge(ctx context.Context, cfg audit.Config) (*Report, error) {
	r := &Report{}
	cfg.Report = r
	_, err := audit.Run(ctx, cfg)
	r.Sort()
	return r, err
}

// Run audits the sources without a policy of their own, and fails the test on an error. It
// does the same with kept subjects (audit.Config.Keeper), which must give the same report.
func Run(t testing.TB, sources ...audit.Source) *Report {
	t.Helper()
	sources = slices.Clone(sources)
	for i, s := range sources {
		if _, record := s.(audit.Record); !record {
			sources[i] = tee{s, new(Static)}
		}
	}
	r, err := Judge(t.Context(), audit.Config{Sources: sources})
	certtest.Must(t, err)
	wantKept(t, sources)
	return r
}

// States maps the place of each row, relative to dir, to its state, the checks of its
// findings and its error. A block behind the first one is "place#2". The finding
// not-judged is left out, because almost every row without a bundle has it.
func States(t testing.TB, r *Report, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, row := range r.Rows {
		place := row.Place
		if rel, err := filepath.Rel(dir, place); err == nil && slices.Contains([]string{"file", "key", "crl"}, row.Kind) {
			place = rel
		}
		if row.Block > 1 {
			place += "#" + strconv.Itoa(row.Block)
		}
		text := row.State
		for _, f := range row.Findings {
			if f.Check == "not-judged" {
				continue
			}
			text += " " + f.Check
		}
		if row.Err != nil {
			text += " " + row.Err.Error()
		}
		out[place] = text
	}
	return out
}

// Want fails the test for each difference. It empties got.
func Want(t testing.TB, got, want map[string]string) {
	t.Helper()
	for place, state := range want {
		if got[place] != state {
			t.Errorf("%s: %q, want %q", place, got[place], state)
		}
		delete(got, place)
	}
	for place, state := range got {
		t.Errorf("unexpected: %s: %q", place, state)
	}
}

// Program returns the path of a program that the audit is compared with. The test is
// skipped if PATH does not have it, and fails if ARTSTORE_JUDGES is "required", as it
// is in .ci/run.
func Program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("ARTSTORE_JUDGES") == "required":
		t.Fatalf("no %s here, and ARTSTORE_JUDGES=required", name)
	default:
		t.Skipf("NOT RUN: the verdicts of the audit were compared with nothing, for want of %s", name)
	}
	return ""
}

// UTF16 encodes text in UTF-16, with a byte order mark if mark is set (RFC 2781 §3.2).
func UTF16(order binary.ByteOrder, mark bool, text []byte) (out []byte) {
	units := utf16.Encode([]rune(string(text)))
	if mark {
		units = append([]uint16{0xfeff}, units...)
	}
	for _, unit := range units {
		out = append(out, 0, 0)
		order.PutUint16(out[len(out)-2:], unit)
	}
	return out
}
