package main

import (
	"crypto/x509"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// TestDecide judges one real certificate at other times, beside other
// authorities and with other things wrong.
func TestDecide(t *testing.T) {
	dir, other := devCertsPlain(t, 30*time.Hour, "--expired", "--not-yet-valid"), devCertsPlain(t, humantime.Day)
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

	good := lookAt(filepath.Join(dir, "localhost"))
	expired, future := lookAt(filepath.Join(dir, "fixtures", "expired")), lookAt(filepath.Join(dir, "fixtures", "not-yet-valid"))
	start, end := good.chain[0].NotBefore, good.chain[0].NotAfter
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
		{"nothing there", "", onDisk{missing: identityFiles[:]}, start, facts, toMake, nil},
		{"the key is missing", "", onDisk{missing: []string{"tls.key"}}, start, facts, toReplace, []string{"tls.key missing"}},
		{"two are", "", onDisk{missing: []string{"tls.key", "ca.crt"}}, start, facts, toReplace, []string{"tls.key and ca.crt missing"}},
		{"damaged", "", onDisk{fault: errors.New("tls.crt: damaged")}, start, facts, toReplace, []string{"not readable: tls.crt: damaged"}},
		{"another key", "", with(good, func(h *onDisk) { h.fits = false }), start, facts, toReplace, []string{"key does not fit"}},
		{"an open key", "", with(good, func(h *onDisk) { h.exposed = true }), start, facts, toReplace, []string{"key was readable by others"}},
		{"a key lying about", "", with(good, func(h *onDisk) { h.unfinished = true }), start, facts, toReplace, []string{"enrolment was cut off"}},
		{"other names", "", with(good, func(h *onDisk) { h.differs = []string{"names changed: + x"} }), start, facts, toReplace, []string{"names changed: + x"}},
		{"another authority", "", good, start, strange, toReplace, []string{"issuer changed", "trust bundle changed"}},
		{"another intermediate", "", good, start, sameRoots, toReplace, []string{"issuer changed"}},
		{"a second root", "", good, start, moreRoots, toReplace, []string{"trust bundle changed"}},
		{"no intermediate in the chain", "", with(good, func(h *onDisk) { h.chain = h.chain[:1] }), start, facts, toReplace, []string{"issuer changed"}},
		{"an intermediate that did not sign it", "", with(good, func(h *onDisk) { h.chain = []*x509.Certificate{strange.issuer, facts.issuer} }), start, facts, toReplace, []string{"issuer changed"}},
		{"everything", "", with(good, func(h *onDisk) { h.fits, h.exposed, h.differs = false, true, []string{"x"} }), end, strange, toReplace,
			[]string{"key does not fit", "key was readable by others", "issuer changed", "trust bundle changed", "x", "expired"}},
		{"expired as it should be", flagExpired, expired, start.Add(time.Hour), facts, toKeep, nil},
		{"expired, and is not", flagExpired, good, start, facts, toReplace, []string{"not expired"}},
		{"not yet valid as it should be", flagNotYetValid, future, start, facts, toKeep, nil},
		{"not yet valid, but tomorrow", flagNotYetValid, future, future.chain[0].NotBefore.Add(-humantime.Day), facts, toReplace, []string{"valid within a day"}},
		{"not yet valid, and was", flagNotYetValid, expired, start.Add(time.Hour), facts, toReplace, []string{"valid within a day"}},
	} {
		got, why := decide(&devItem{fixture: c.fixture}, c.h, decisionInput{now: c.at, facts: c.facts})
		if got != c.want || !slices.Equal(why, c.why) {
			t.Errorf("%s: %s because %q, want %s because %q", c.name, got, why, c.want, c.why)
		}
	}
}
