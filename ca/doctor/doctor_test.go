package doctor_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// newAuthority makes a state directory without a password, whose root key is elsewhere.
func newAuthority(t testing.TB, opt setup.Options) string {
	t.Helper()
	opt.Dir, opt.PlainKeys = filepath.Join(t.TempDir(), "pki"), true
	opt.OfflineRoot = filepath.Join(t.TempDir(), "root.key")
	if _, err := setup.Init(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	return opt.Dir
}

func diagnose(t testing.TB, opt doctor.Options, severity string) (out []string) {
	t.Helper()
	for _, d := range doctor.Run(t.Context(), opt) {
		if d.Severity == severity {
			out = append(out, d.Check+": "+d.Text)
		}
	}
	return out
}

// Each fault is found, and the diagnosis names it.
func TestDoctor(t *testing.T) {
	for name, tc := range map[string]struct {
		opt            setup.Options
		damage         func(t *testing.T, dir string)
		severity, want string
	}{
		"no configuration": {damage: func(t *testing.T, dir string) { remove(t, dir, "pki.yaml") }, severity: doctor.Error, want: "configuration: reading"},
		"bad configuration": {damage: func(t *testing.T, dir string) { damage.Config(t, dir, "colour: blue\n") },
			severity: doctor.Error, want: `unknown key "colour"`},
		"a key for all to read": {damage: func(t *testing.T, dir string) { chmod(t, dir, "secrets/enrolment.jwe", 0o644) },
			severity: doctor.Error, want: "secrets/enrolment.jwe has mode 0644, want 0600"},
		"a directory for all to write": {damage: func(t *testing.T, dir string) { chmod(t, dir, "certs", 0o777) }, severity: doctor.Error, want: "certs has mode 0777"},
		"no trust":                     {damage: func(t *testing.T, dir string) { remove(t, dir, "certs/current.json") }, severity: doctor.Error, want: "trust: reading trust"},
		"no issuing key": {damage: func(t *testing.T, dir string) {
			for _, p := range damage.Files(t, dir, "secrets/*.key") {
				if filepath.Base(p) != "log.key" {
					remove(t, p, "")
				}
			}
		}, severity: doctor.Error, want: "keys: reading the key of"},
		"names that are not permitted": {opt: setup.Options{Root: setup.Certificate{Permit: []string{"localhost", "127.0.0.0/8", "::1"}}},
			severity: doctor.Warning, want: "trust: service ingester may have names that the CA certificates do not permit, so that clients refuse its certificates: ingester, ingester-module"},
		"an intermediate that ends": {opt: setup.Options{Intermediate: setup.Certificate{Lifetime: 48 * time.Hour}}, severity: doctor.Warning, want: "trust: intermediate"},
		"keys in the clear":         {severity: doctor.Warning, want: "is not encrypted"},
		"a root key within reach":   {severity: doctor.Warning, want: "take the medium out"},
		"a password beside": {damage: func(t *testing.T, dir string) { damage.File(t, filepath.Join(dir, "secrets", "password"), []byte("x")) },
			severity: doctor.Warning, want: "the password is beside the keys"},
		"no record": {damage: func(t *testing.T, dir string) { remove(t, dir, "pki.db") }, severity: doctor.Error, want: "record: inspecting"},
		"a damaged record": {damage: func(t *testing.T, dir string) {
			damage.File(t, filepath.Join(dir, "pki.db"), []byte("not a database, but long enough to look like one"))
		}, severity: doctor.Error, want: "record: inspecting"},
		"a record of the future": {damage: func(t *testing.T, dir string) {
			damage.SQL(t, dir, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
		}, severity: doctor.Error, want: "schema version 99999 is newer"},
		"an older record": {damage: func(t *testing.T, dir string) {
			damage.SQL(t, dir, `DELETE FROM goose_db_version WHERE version_id > 1`)
		},
			severity: doctor.Warning, want: "at the next start"},
		"enrollers with their key": {damage: func(t *testing.T, dir string) { damage.Config(t, dir, "enrollers: {ingester: [query-module]}\n") },
			severity: doctor.OK, want: "the enrolment keys for 1 enrollers can be used"},
		"enrollers without one": {damage: func(t *testing.T, dir string) {
			damage.Config(t, dir, "enrollers: {ingester: [query-module]}\n")
			remove(t, dir, "secrets/enrolment.jwe")
		}, severity: doctor.Error, want: "enrollers.ingester: choosing an enrolment key:"},
		"no key of the log": {damage: func(t *testing.T, dir string) { remove(t, dir, "certs/log.pub") }, severity: doctor.Error, want: "record: reading the public key of the log"},
		"trust of a stranger": {damage: func(t *testing.T, dir string) {
			damage.SQL(t, dir, `INSERT INTO trust_versions (version, document, at) SELECT 1 + COALESCE(MAX(version), 0), 'not signed', 0 FROM trust_versions`)
		}, severity: doctor.Error, want: "of the trust in the record was written by a stranger or is damaged"},
		"no marker": {damage: func(t *testing.T, dir string) { remove(t, dir, "certs/log.head") }, severity: doctor.Warning, want: "there is no marker"},
		"a damaged marker": {damage: func(t *testing.T, dir string) { damage.File(t, filepath.Join(dir, "certs", "log.head"), []byte("x")) },
			severity: doctor.Error, want: "or accept the loss with"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newAuthority(t, tc.opt)
			if tc.damage != nil {
				tc.damage(t, dir)
			}
			got := diagnose(t, doctor.Options{Dir: dir}, tc.severity)
			if !strings.Contains(strings.Join(got, "\n"), tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

func read(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func remove(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func chmod(t testing.TB, dir, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
		t.Fatal(err)
	}
}

// A sound authority has no error. A clock that is behind the record is one.
func TestDoctorOnARunningAuthority(t *testing.T) {
	dir := catest.Start(t, catest.Options{}).Dir // it has issued a certificate to itself
	if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); len(bad) > 0 {
		t.Errorf("found %q", bad)
	}
	awaitLog(t, dir)
	if good := diagnose(t, doctor.Options{Dir: dir, Log: true}, doctor.OK); !strings.Contains(strings.Join(good, "\n"), "log: 1 entries, 1 made again") {
		t.Errorf("found %q", good)
	}
	damage.SQL(t, dir, `UPDATE certificates SET issued_at = issued_at + 3600000`)
	if bad := diagnose(t, doctor.Options{Dir: dir, Log: true}, doctor.Error); !strings.Contains(strings.Join(bad, "\n"), "log: ") {
		t.Errorf("an altered row was not found: %q", bad)
	}
	if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); len(bad) != 1 || !strings.Contains(bad[0], "clock: the last certificate was issued at") {
		t.Errorf("found %q", bad)
	}
}

// awaitLog waits until the log of a running authority has its first entry.
func awaitLog(t testing.TB, dir string) {
	t.Helper()
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		text, err := r.LogHead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if size, ok := translog.SizeOf(text); ok && size > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no entry in the log: %s", text)
		}
	}
}

// The list that certificates name is fetched and verified.
func TestDoctorFetchesTheList(t *testing.T) {
	dir, other := newAuthority(t, setup.Options{}), newAuthority(t, setup.Options{})
	handler := func(dir string) http.Handler {
		a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		return a.CRLHandler()
	}
	var serve http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve.ServeHTTP(w, r) }))
	defer server.Close()
	foreign := handler(other)
	damage.Config(t, dir, "crl_url: "+server.URL+"/crl\n")
	for name, tc := range map[string]struct {
		serve http.Handler
		want  string
	}{
		"good":    {handler(dir), ""},
		"absent":  {http.NotFoundHandler(), "answers 404"},
		"foreign": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { r.URL.RawQuery = ""; foreign.ServeHTTP(w, r) }), "is none of"},
		"no list": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }), "is none of"},
	} {
		serve = tc.serve
		bad := diagnose(t, doctor.Options{Dir: dir, Get: new(http.Transport).RoundTrip}, doctor.Error)
		if (len(bad) == 0) != (tc.want == "") || len(bad) > 0 && !strings.Contains(bad[0], tc.want) {
			t.Errorf("%s: found %q, want %q", name, bad, tc.want)
		}
	}
	server.Close()
	if bad := diagnose(t, doctor.Options{Dir: dir, Get: new(http.Transport).RoundTrip}, doctor.Error); len(bad) != 1 || !strings.Contains(bad[0], "fetching the list") {
		t.Errorf("nobody there: %q", bad)
	}
}

// A retired issuer signs its list until its last certificate has ended, so its key
// must be there. The key of the new issuer does not replace it.
func TestDoctorMissesTheKeyOfARetiredIssuer(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	signing := func() *x509.Certificate {
		cert, err := pemfile.Certificates(read(t, c.Dir, "certs/intermediate_ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return cert[0]
	}
	old := signing()
	c.RotateIntermediate(t)
	if bad := diagnose(t, doctor.Options{Dir: c.Dir}, doctor.Error); len(bad) > 0 {
		t.Errorf("after a rotation: %q", bad)
	}
	remove(t, c.Dir, "secrets/"+certs.Fingerprint(old)+".key")
	if bad := diagnose(t, doctor.Options{Dir: c.Dir}, doctor.Error); len(bad) != 1 || !strings.Contains(bad[0], old.Subject.CommonName) {
		t.Errorf("found %q", bad)
	}
}

// A lineage with as many live certificates as its profile allows does not renew.
func TestDoctorWarnsOfFullLineages(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{
		"few": {Names: []string{"few"}, MaxLivePerLineage: 1}, "many": {Names: []string{"many"}},
	}})
	m, err := enroll.Issue(t.Context(), enroll.Config{
		URL: c.URL, Roots: c.Roots(), InMemory: true,
		Token: func(context.Context) (secret.String, error) { return c.Token(t, "few"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "record: lineage " + certs.HexSerial(certs.Serial(m.Certificate.Leaf)) + " of service few has 1 live certificates, and may have 1 (profiles.few.max_live_per_lineage)"
	found := diagnose(t, doctor.Options{Dir: c.Dir}, doctor.Warning)
	if n := slices.IndexFunc(found, func(text string) bool { return strings.Contains(text, "live certificates") }); n < 0 || !strings.HasPrefix(found[n], want) {
		t.Errorf("found %q, want %q", found, want)
	}
}

// A fault of the chain has another diagnosis than a fault of the clock.
func TestDoctorOnTrust(t *testing.T) {
	for name, tc := range map[string]struct {
		opt  setup.Options
		want string
	}{
		"expired":   {setup.Options{Intermediate: setup.Certificate{Lifetime: time.Millisecond}}, "trust: intermediate"},
		"all of it": {setup.Options{Root: setup.Certificate{Lifetime: time.Millisecond}}, "trust: root"},
	} {
		dir := newAuthority(t, tc.opt)
		if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); !strings.Contains(strings.Join(bad, "\n"), tc.want) {
			t.Errorf("%s: %q", name, bad)
		}
	}
	dir, other := newAuthority(t, setup.Options{}), newAuthority(t, setup.Options{})
	root, err := ca.StateDir(other).ActiveRoot()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := ca.StateDir(dir).ActiveRoot()
	if err != nil {
		t.Fatal(err)
	}
	foreign := certs.Fingerprint(root)
	damage.File(t, filepath.Join(dir, "certs", foreign+".crt"), pemfile.EncodeCertificates([]*x509.Certificate{root}))
	damage.File(t, filepath.Join(dir, "certs", "current.json"), bytes.Replace(read(t, dir, "certs/current.json"), []byte(certs.Fingerprint(mine)), []byte(foreign), 1))
	if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); !strings.Contains(strings.Join(bad, "\n"), "was signed by none of the roots") {
		t.Errorf("a foreign root: %q", bad)
	}
}

// doctor warns of a directory whose copy of the trust has fallen behind the record.
func TestDoctorOnALaggingDirectory(t *testing.T) {
	c := catest.Start(t, catest.Options{})
	before := read(t, c.Dir, "certs/current.json")
	c.AddRoot(t)
	const want = "certs/current.json has version 1, and the record 2"
	if found := diagnose(t, doctor.Options{Dir: c.Dir}, doctor.Warning); strings.Contains(strings.Join(found, "\n"), want) {
		t.Errorf("one that follows: %q", found)
	}
	damage.File(t, filepath.Join(c.Dir, "certs", "current.json"), before)
	if found := diagnose(t, doctor.Options{Dir: c.Dir}, doctor.Warning); !strings.Contains(strings.Join(found, "\n"), want) {
		t.Errorf("one that does not: %q", found)
	}
}

// doctor warns of a pattern or wildcard that covers a name of another profile, and not
// of a name that two profiles list.
func TestDoctorWarnsOfOverlaps(t *testing.T) {
	profiles := map[string]policy.Profile{
		"workers":  {Patterns: []string{"*.workers.internal", "10.20.0.0/16", "spiffe://artstore/workers/*"}},
		"gateway":  {Names: []string{"gateway"}, Patterns: []string{"**.gw.internal"}, Wildcards: []string{"*.apps.internal"}},
		"intruder": {Names: []string{"localhost"}, Patterns: []string{"**.internal"}},
		"app":      {Names: []string{"localhost", "shop.apps.internal"}},
	}
	var got []string
	for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: catest.Start(t, catest.Options{Profiles: profiles}).Dir}) {
		if d.Check == "configuration" && d.Severity == doctor.Warning {
			if text, _, ok := strings.Cut(d.Text, " have names in common"); ok {
				got = append(got, text)
			}
		}
	}
	want := []string{
		"**.internal of profiles.intruder and *.apps.internal of profiles.gateway",
		"**.internal of profiles.intruder and *.workers.internal of profiles.workers",
		"**.internal of profiles.intruder and shop.apps.internal of profiles.app",
		"*.apps.internal of profiles.gateway and shop.apps.internal of profiles.app",
	}
	if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("%q", got)
	}
}

// doctor warns of a pattern or a wildcard that covers a name of the authority, as of a
// listed name.
func TestDoctorWarnsOfNamesOfTheAuthority(t *testing.T) {
	c := catest.Start(t, catest.Options{
		Profiles: map[string]policy.Profile{
			"gateway": {Wildcards: []string{"*.internal"}},
			"workers": {Patterns: []string{"**.internal"}},
			"other":   {Names: []string{"other"}, Wildcards: []string{"*.ca.internal"}, Patterns: []string{"*.x.internal"}},
		},
		Edit: func(text []byte) []byte {
			return regexp.MustCompile(`(?m)^dns_names: .*$`).ReplaceAll(text, []byte(`dns_names: [localhost, 127.0.0.1, ca.internal]`))
		},
	})
	found := false
	for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: c.Dir}) {
		found = found || strings.Contains(d.Text, "ca.internal of dns_names can be obtained by gateway, workers:")
	}
	if !found {
		t.Error("no warning of both")
	}
}

// No file in the directory has changed after doctor has looked at it.
func TestDoctorChangesNothing(t *testing.T) {
	dir := newAuthority(t, setup.Options{})
	for name, change := range map[string]func(){
		"sound":           func() {},
		"an older record": func() { damage.SQL(t, dir, `DELETE FROM goose_db_version WHERE version_id > 1`) },
		"no marker":       func() { remove(t, dir, "certs/log.head") },
	} {
		change()
		before := contents(t, dir)
		doctor.Run(t.Context(), doctor.Options{Dir: dir, Log: true})
		if after := contents(t, dir); !maps.Equal(after, before) {
			t.Errorf("%s: files %q, before %q", name, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
		}
	}
}

// contents returns the mode and the content of each file below dir, by its path.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		all[path] = info.Mode().String()
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			all[path] += string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
