package audit_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/internal/certs"
)

func baseline(t *testing.T, text string) *audit.Baseline {
	t.Helper()
	b, err := audit.ParseBaseline(text)
	certtest.Must(t, err)
	return b
}

func TestParseBaseline(t *testing.T) {
	sum := "sha256:" + strings.Repeat("0a", 32)
	for text, wrong := range map[string]string{
		"":                              "",
		"\n  \t\n# a comment\r\n":       "",
		"weak-key " + sum:               "",
		"expired a until=2027-01-31 #x": "",
		"expired\t\"a b\\\"\"  # why":   "",
		"expired \"#\"":                 "",
		"expired":                       "line 1: want a subject: sha256:HEX, or a place, in double quotes if it has blanks",
		"expired # why":                 "line 1: want a subject",
		"\nnonsense a":                  `line 2: there is no check "nonsense"`,
		"EXPIRED a":                     "there is no check",
		"expired a b":                   `what is "b"? want CHECK SUBJECT [until=DATE] [# why]`,
		"expired a until=soon":          `"until=soon": want a date like until=2027-01-31`,
		"expired a until=2027-02-30":    "want a date",
		"expired a until=2027-01-01 b":  `what is "b"?`,
		"expired a\nexpired a":          "line 2: expired a is there already",
		"expired a\nexpired \"a\"":      "is there already",
		"expired sha256:0a":             "want sha256: and 64 hexadecimal digits",
		"expired " + strings.ToUpper(sum[:7]) + sum[7:]: "",
		"expired sha256:" + strings.ToUpper(sum[7:]):    "64 hexadecimal digits, lower case",
		"expired \"a":                   "want a subject",
		"expired a\"b":                  "want a subject",
		"expired \"a\"until=2027-01-31": "no blank behind",
	} {
		_, err := audit.ParseBaseline(text)
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%q: %v, want %q", text, err, wrong)
		}
	}
}

// accepted runs an audit with a baseline, and returns the one that it writes.
func accepted(t *testing.T, b *audit.Baseline, cfg audit.Config) (*audittest.Report, string) {
	t.Helper()
	var next bytes.Buffer
	cfg.Baseline, cfg.NewBaseline = b, &next
	r, err := audittest.Judge(t.Context(), cfg)
	certtest.Must(t, err)
	return r, next.String()
}

func TestBaseline(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	old := certtest.New(t, root, "old\x1b", certtest.Lives(400*certtest.Day, 365*certtest.Day), certtest.Named())
	daily := certtest.New(t, root, "daily", certtest.Lives(time.Hour, certtest.Day), uses(0))
	key := func(path string) *cert.KeyFile { return &cert.KeyFile{Path: path, Mode: 0o644, Fits: true} }
	rows := func(daily *certtest.Pair) audittest.Static {
		return audittest.Static{
			{Kind: "file", Place: "/etc/old app/tls.crt", Cert: certtest.Seen(old.Cert)}, {Kind: "file", Place: "/copy.crt", Cert: certtest.Seen(old.Cert)},
			{Kind: "file", Place: "/daily.crt", Cert: certtest.Seen(daily.Cert), Key: key("/daily.key")},
		}
	}
	cfg := audit.Config{Sources: []audit.Source{rows(daily)}}
	r, text := accepted(t, nil, cfg)
	sum := "sha256:" + certs.Fingerprint(old.Cert)
	// The copy is the same certificate; what a program renews is known by its place.
	want := "# Accepted findings of artstore-pki audit: CHECK SUBJECT [until=DATE] [# why]\n" +
		"expired " + sum + " # old\\u001b\nkey-readable /daily.crt # daily\nno-san " + sum + " # old\\u001b\n"
	if text != want {
		t.Fatalf("got:\n%s\nwant:\n%s", text, want)
	}
	if r.Accepted != 0 || r.Crit != 1 || r.Warn != 1 {
		t.Errorf("%+v", r.Summary)
	}

	// All of it accepted, also after a renewal: nothing is left, and that is said.
	cfg.Sources = []audit.Source{rows(certtest.New(t, root, "daily", certtest.Lives(time.Minute, certtest.Day), uses(0)))}
	r, again := accepted(t, baseline(t, text), cfg)
	if again != text || r.Accepted != 5 || r.Fine != 2 || len(r.Stale) != 0 {
		t.Errorf("%+v, next:\n%s", r.Summary, again)
	}
	if got := audittest.States(t, r, "")["/daily.crt"]; got != "OK" || !strings.Contains(r.String(), "; 5 findings accepted") {
		t.Errorf("%s, %s", got, r)
	}
	var all bytes.Buffer
	certtest.Must(t, r.WriteJSON(&all))
	certtest.Must(t, r.Explain(&all))
	for _, part := range []string{`"accepted":["expired","no-san"]`, `"accepted":5`, "\n  accepted     key-readable\n"} {
		if !strings.Contains(all.String(), part) {
			t.Errorf("no %s in %s", part, all.String())
		}
	}

	// What is fixed is named, unless its check did not run; what is over comes back.
	today, yesterday := time.Now().UTC().Format(time.DateOnly), time.Now().UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	b := baseline(t, "weak-key \"/gone app.crt\"\nno-san /copy.crt until="+today+"\nkey-readable /daily.crt until="+yesterday+"\nexpired "+sum+" until=2100-01-01\nuntrusted /x\n")
	cfg.Disable = []string{"untrusted"}
	r, again = accepted(t, b, cfg)
	if got := audittest.States(t, r, ""); got["/etc/old app/tls.crt"] != "WARN no-san" || got["/copy.crt"] != "OK" || got["/daily.crt"] != "WARN key-readable" {
		t.Error(got)
	}
	if len(r.Stale) != 1 || r.Stale[0] != `weak-key "/gone app.crt"` || !strings.HasSuffix(r.String(), "; 3 findings accepted, 1 acceptance for nothing") {
		t.Errorf("%q, %s", r.Stale, r)
	}
	if got := findings(r, "key-readable")["file /daily.crt key-readable"]; !strings.HasSuffix(got, " (it was accepted until "+yesterday+")") {
		t.Error(got)
	}
	for _, line := range []string{"expired " + sum + " until=2100-01-01 # ", "no-san /copy.crt until=" + today + " # ", "key-readable /daily.crt # daily\n"} {
		if !strings.Contains(again, line) {
			t.Errorf("no %q in\n%s", line, again)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestBaselineNotWritten(t *testing.T) {
	r := &audittest.Report{}
	_, err := audit.Run(context.Background(), audit.Config{Report: r, NewBaseline: full{}})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
}

// Contract: a baseline that a run writes is read back unchanged, whatever a place looks
// like. Any other text is refused, or gives acceptances that can be written and read
// again.
func FuzzBaseline(f *testing.F) {
	f.Add("weak-key a until=2027-01-31 # why", "/a b")
	f.Add("expired \"a\\x00\"", "#")
	f.Add("", "\"\\\u2028\xff")
	f.Add("expired sha256:"+strings.Repeat("00", 32), "sha256:x")
	cert := certtest.Seen(certtest.New(f, nil, "x", certtest.Lives(time.Hour, time.Hour)).Cert)
	f.Fuzz(func(t *testing.T, text, place string) {
		b, err := audit.ParseBaseline(text)
		if err == nil {
			for _, a := range audit.Acceptances(b) {
				again, err := audit.ParseBaseline(a)
				if err != nil || len(audit.Acceptances(again)) != 1 || audit.Acceptances(again)[0] != a {
					t.Errorf("%q is read back as %v, %v", a, again, err)
				}
			}
		}
		run := func(b *audit.Baseline) (*audittest.Report, string) {
			return accepted(t, b, audit.Config{Sources: []audit.Source{audittest.Static{{Kind: "file", Place: place, Cert: cert}}}})
		}
		_, first := run(nil)
		r, second := run(baseline(t, first))
		if r.Crit != 0 || r.Accepted == 0 || first != second {
			t.Errorf("%q: %s, %q", place, r, second)
		}
	})
}

// A finding about a key without a certificate is accepted by its place.
func TestBaselineOfKeys(t *testing.T) {
	dir := certtest.Write(t, map[string][]byte{"tls.key": certtest.New(t, nil, "x").KeyPEM(t)})
	certtest.Must(t, os.Chmod(filepath.Join(dir, "tls.key"), 0o644))
	var next bytes.Buffer
	cfg := audit.Config{Sources: []audit.Source{audittest.Paths(dir)}, NewBaseline: &next}
	r, err := audittest.Judge(t.Context(), cfg)
	certtest.Must(t, err)
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{"tls.key": "WARN key-readable"})
	cfg.NewBaseline = nil
	if cfg.Baseline, err = audit.ParseBaseline(next.String()); err != nil {
		t.Fatal(err)
	}
	r, err = audittest.Judge(t.Context(), cfg)
	certtest.Must(t, err)
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{"tls.key": "OK"})
}
