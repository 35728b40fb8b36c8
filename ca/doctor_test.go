package ca_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/setup"
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

// Each thing that can be wrong is found, and named.
func TestDoctor(t *testing.T) {
	for name, tc := range map[string]struct {
		opt            setup.Options
		damage         func(t *testing.T, dir string)
		severity, want string
	}{
		"no configuration": {damage: func(t *testing.T, dir string) { remove(t, dir, "pki.yaml") }, severity: doctor.Error, want: "configuration: reading"},
		"bad configuration": {damage: func(t *testing.T, dir string) { overwriteConfig(t, dir, "colour: blue\n") },
			severity: doctor.Error, want: `unknown key "colour"`},
		"a key for all to read": {damage: func(t *testing.T, dir string) { chmod(t, dir, "secrets/enrolment.jwe", 0o644) },
			severity: doctor.Error, want: "secrets/enrolment.jwe has mode 0644, want 0600"},
		"a directory for all to write": {damage: func(t *testing.T, dir string) { chmod(t, dir, "certs", 0o777) }, severity: doctor.Error, want: "certs has mode 0777"},
		"no trust":                     {damage: func(t *testing.T, dir string) { remove(t, dir, "certs/current.json") }, severity: doctor.Error, want: "trust: reading trust"},
		"no issuing key": {damage: func(t *testing.T, dir string) {
			for _, p := range glob(t, dir, "secrets/*.key") {
				if filepath.Base(p) != "log.key" {
					remove(t, p, "")
				}
			}
		}, severity: doctor.Error, want: "keys: reading the key of"},
		"an intermediate that ends": {opt: setup.Options{IntermediateLifetime: 48 * time.Hour}, severity: doctor.Warning, want: "trust: intermediate"},
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

// A sound authority has nothing wrong; a clock that is behind its record has.
func TestDoctorOnARunningAuthority(t *testing.T) {
	dir := newAuthority(t, setup.Options{})
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if err := a.IssueOwn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); len(bad) > 0 {
		t.Errorf("found %q", bad)
	}
	if err := a.SequenceLog(t.Context()); err != nil {
		t.Fatal(err)
	}
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

// The list that certificates point to is fetched and verified.
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
	overwriteConfig(t, dir, "crl_url: "+server.URL+"/crl\n")
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

// Pruning takes what expired longer ago than anything can be renewed.
func TestPrune(t *testing.T) {
	dir := newAuthority(t, setup.Options{})
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for range 3 {
		if err := a.IssueOwn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	damage.SQL(t, dir, `UPDATE certificates SET not_after = 1000 WHERE id < 3`)
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	young := time.Now().Add(-71 * time.Hour)
	if _, err := r.Prunable(t.Context(), young); err == nil {
		t.Error("what can be renewed could be pruned")
	}
	if _, err := r.Prune(t.Context(), young); err == nil {
		t.Error("what can be renewed was pruned")
	}
	before := time.Now().Add(-73 * time.Hour)
	if n, err := r.Prunable(t.Context(), before); err != nil || n != 2 {
		t.Errorf("%d prunable, %v", n, err)
	}
	if err := a.SequenceLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Prune(t.Context(), before); err != nil || n != 2 {
		t.Errorf("%d pruned, %v", n, err)
	}
	if n, err := r.Prunable(t.Context(), before); err != nil || n != 0 {
		t.Errorf("%d prunable afterwards, %v", n, err)
	}
}
