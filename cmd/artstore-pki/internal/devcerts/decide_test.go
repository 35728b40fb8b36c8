package devcerts

import (
	"crypto/x509"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// plainCertificates makes a directory over an authority whose keys are not
// encrypted: with the race detector, deriving keys from passwords takes most of a minute.
func plainCertificates(t *testing.T, life time.Duration, fixtures ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	_, err := setup.Init(t.Context(), setup.Options{Dir: filepath.Join(dir, "ca"), LeafLifetime: life, Profiles: Profiles(), PlainKeys: true})
	if err != nil {
		t.Fatal(err)
	}
	u := ui.New(ui.Streams{Out: io.Discard, Err: t.Output(), Getenv: func(string) string { return "" }})
	if err := Keep(t.Context(), u, Options{Dir: dir, Life: life, Fixtures: fixtures, Format: output.Table}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// onDisk is the input of a decision: the content of a directory, and how it differs from the profile.
type onDisk struct {
	enroll.Inspection
	differs []string
}

func look(dir string) onDisk { return onDisk{Inspection: enroll.Inspect(dir)} }

// TestDecide decides about one real certificate at different times, with different authorities, and with
// different faults.
func TestDecide(t *testing.T) {
	dir, other := plainCertificates(t, 30*time.Hour, Expired, NotYetValid), plainCertificates(t, humantime.Day)
	facts, err := readAuthority(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	strange, err := readAuthority(filepath.Join(other, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	sameRoots := authorityFacts{roots: facts.roots, issuer: strange.issuer}
	moreRoots := authorityFacts{roots: append(slices.Clone(facts.roots), strange.roots...), issuer: facts.issuer}

	good := look(filepath.Join(dir, "localhost"))
	expired, future := look(filepath.Join(dir, "fixtures", "expired")), look(filepath.Join(dir, "fixtures", "not-yet-valid"))
	start, end := good.Chain[0].NotBefore, good.Chain[0].NotAfter
	life := end.Sub(start)
	with := func(h onDisk, change func(*onDisk)) onDisk { change(&h); return h }

	for _, c := range []struct {
		name    string
		fixture string
		h       onDisk
		at      time.Time
		facts   authorityFacts
		want    itemAction
		why     []string
	}{
		{"fresh", "", good, start, facts, toKeep, nil},
		{"more than a third left", "", good, end.Add(-life/3 - time.Second), facts, toKeep, nil},
		{"a third left", "", good, end.Add(-life / 3), facts, toReplace, []string{"a third of its life is left"}},
		{"its last moment", "", good, end, facts, toReplace, []string{"expired"}},
		{"before its first", "", good, start.Add(-time.Second), facts, toReplace, []string{"not valid yet"}},
		{"nothing there", "", onDisk{Inspection: enroll.Inspection{Missing: identityFiles[:]}}, start, facts, toMake, nil},
		{"the key is missing", "", onDisk{Inspection: enroll.Inspection{Missing: []string{"tls.key"}}}, start, facts, toReplace, []string{"tls.key missing"}},
		{"two are", "", onDisk{Inspection: enroll.Inspection{Missing: []string{"tls.key", "ca.crt"}}}, start, facts, toReplace, []string{"tls.key and ca.crt missing"}},
		{"damaged", "", onDisk{Inspection: enroll.Inspection{Err: errors.New("tls.crt: damaged")}}, start, facts, toReplace, []string{"not readable: tls.crt: damaged"}},
		{"another key", "", with(good, func(h *onDisk) { h.KeyFits = false }), start, facts, toReplace, []string{"key does not fit"}},
		{"an open key", "", with(good, func(h *onDisk) { h.KeyExposed = true }), start, facts, toReplace, []string{"key was readable by others"}},
		{"a key lying about", "", with(good, func(h *onDisk) { h.Unfinished = true }), start, facts, toReplace, []string{"enrolment was cut off"}},
		{"other names", "", with(good, func(h *onDisk) { h.differs = []string{"names changed: + x"} }), start, facts, toReplace, []string{"names changed: + x"}},
		{"another authority", "", good, start, strange, toReplace, []string{"issuer changed", "trust bundle changed"}},
		{"another intermediate", "", good, start, sameRoots, toReplace, []string{"issuer changed"}},
		{"a second root", "", good, start, moreRoots, toReplace, []string{"trust bundle changed"}},
		{"no intermediate in the chain", "", with(good, func(h *onDisk) { h.Chain = h.Chain[:1] }), start, facts, toReplace, []string{"issuer changed"}},
		{"an intermediate that did not sign it", "", with(good, func(h *onDisk) { h.Chain = []*x509.Certificate{strange.issuer, facts.issuer} }), start, facts, toReplace, []string{"issuer changed"}},
		{"everything", "", with(good, func(h *onDisk) { h.KeyFits, h.KeyExposed, h.differs = false, true, []string{"x"} }), end, strange, toReplace,
			[]string{"key does not fit", "key was readable by others", "issuer changed", "trust bundle changed", "x", "expired"}},
		{"expired as it should be", Expired, expired, start.Add(time.Hour), facts, toKeep, nil},
		{"expired, and is not", Expired, good, start, facts, toReplace, []string{"not expired"}},
		{"not yet valid as it should be", NotYetValid, future, start, facts, toKeep, nil},
		{"not yet valid, but tomorrow", NotYetValid, future, future.Chain[0].NotBefore.Add(-humantime.Day), facts, toReplace, []string{"valid within a day"}},
		{"not yet valid, and was", NotYetValid, expired, start.Add(time.Hour), facts, toReplace, []string{"valid within a day"}},
	} {
		got, why := decide(&certificate{fixture: c.fixture}, c.h.Inspection, decisionInput{now: c.at, facts: c.facts, differs: c.h.differs})
		if got != c.want || !slices.Equal(why, c.why) {
			t.Errorf("%s: %s because %q, want %s because %q", c.name, got, why, c.want, c.why)
		}
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"certs/ca.crt": "certs/ca.crt",
		"a b/ca.crt":   "'a b/ca.crt'",
		"it's":         `'it'\''s'`,
		"$HOME;x":      "'$HOME;x'",
		"~/x":          "'~/x'",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("%s is written %s, want %s", in, got, want)
		}
	}
}
