package ca_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
)

// patterned returns profiles with names that are not all listed.
func patterned() map[string]policy.Profile {
	return map[string]policy.Profile{
		"workers": {Patterns: []string{"*.workers.internal", "10.20.0.0/16", "spiffe://artstore/workers/*"}},
		"gateway": {Names: []string{"gateway"}, Patterns: []string{"**.gw.internal"}, Wildcards: []string{"*.apps.internal"}},
	}
}

// A request gets the names that its profile lists or has a pattern for. The refusal of
// another name says which keys of pki.yaml decide.
func TestPatternsDecide(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: patterned()})
	cl := newClient(t, c, nil)
	for _, tc := range []struct {
		service string
		names   []string
		refused string // empty means issued
	}{
		{"workers", []string{"w-1.workers.internal", "10.20.7.9", "spiffe://artstore/workers/1"}, ""},
		{"workers", []string{"a.b.workers.internal"}, `"a.b.workers.internal" is not a name of service workers (profiles.workers.names, profiles.workers.patterns) (rule: names)`},
		{"workers", []string{"w-1.workers.internal", "workers.internal"}, "profiles.workers.patterns"},
		{"workers", []string{"10.21.0.1"}, "profiles.workers.patterns"},
		{"workers", []string{"*.workers.internal"}, `(profiles.workers.wildcards) (rule: names)`},
		{"workers", []string{"spiffe://artstore/workers/1/2"}, "profiles.workers.patterns"},
		{"gateway", []string{"gateway", "a.b.gw.internal", "*.apps.internal"}, ""},
		{"gateway", []string{"a.apps.internal"}, "profiles.gateway.patterns"},
		{"gateway", []string{"*.gw.internal"}, "profiles.gateway.wildcards"},
	} {
		key := newKey(t)
		// TokenFor signs such a token, so that the authority itself must refuse it.
		token, err := ca.TokenFor(c.Dir, tc.service, tc.names...)
		if err != nil {
			t.Fatal(err)
		}
		_, early := ca.StateDir(c.Dir).NewToken(t.Context(), ca.TokenOptions{Service: tc.service, Names: tc.names})
		status, body := cl.do("POST", "/sign", signRequest(t, token, key, tc.service, tc.names...))
		if tc.refused == "" {
			if status != http.StatusCreated || early != nil {
				t.Errorf("%s %q: %d %s; token: %v", tc.service, tc.names, status, body, early)
			} else if got := slices.Sorted(slices.Values(certs.Names(pair(t, body, key).Leaf))); !slices.Equal(got, slices.Sorted(slices.Values(tc.names))) {
				t.Errorf("%s %q: issued for %q", tc.service, tc.names, got)
			}
			continue
		}
		if status != http.StatusForbidden || !strings.Contains(message(t, body), tc.refused) {
			t.Errorf("%s %q: %d %s, want %q", tc.service, tc.names, status, body, tc.refused)
		}
		if early == nil || !strings.Contains(early.Error(), tc.refused) {
			t.Errorf("%s %q: a token was made: %v", tc.service, tc.names, early)
		}
	}
	c.Check(t)
}

// Names that a pattern has allowed are renewed while the pattern exists, and not after
// it was removed.
func TestPatternsHoldForRenewals(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: patterned()})
	cl := newClient(t, c, enrol(t, c, "workers", "w-1.workers.internal"))
	if status, body := cl.do("POST", "/renew", nil); status != http.StatusCreated {
		t.Fatalf("%d %s", status, body)
	}
	c.Rewrite(t, func(text []byte) []byte {
		return []byte(strings.ReplaceAll(string(text), "*.workers.internal", "*.others.internal"))
	})
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, body := cl.do("POST", "/renew", nil); status != http.StatusForbidden || !strings.Contains(message(t, body), "profiles.workers.patterns") {
		t.Errorf("%d %s", status, body)
	}
}

// A token is for the names that the profile lists. For a profile with patterns only,
// the token must name them.
func TestTokenOfPatterns(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: patterned()})
	status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, c.Token(t, "gateway"), newKey(t), "gateway", "gateway"))
	if status != http.StatusCreated {
		t.Errorf("for the names listed: %d %s", status, body)
	}
	_, err := ca.StateDir(c.Dir).NewToken(t.Context(), ca.TokenOptions{Service: "workers"})
	if err == nil || !strings.Contains(err.Error(), "profiles.workers.names is empty, so a token must say which names it is for") {
		t.Error(err)
	}
}

func TestProfileNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 60) + ".b.c" // 64 characters
	for name, tc := range map[string]struct {
		service string
		profile policy.Profile
		want    string // in the error; empty means that it is taken
	}{
		"64 characters":          {long, policy.Profile{Names: []string{"a"}}, ""},
		"65 characters":          {long + "d", policy.Profile{Names: []string{"a"}}, "a service name has at most 64 characters, because it is the common name of certificates; this one has 65"},
		"patterns alone":         {"x", policy.Profile{Patterns: []string{"**.x"}}, ""},
		"wildcards alone":        {"x", policy.Profile{Wildcards: []string{"*.x"}}, ""},
		"nothing":                {"x", policy.Profile{}, "profiles.x: want at least one name"},
		"a wildcard as a name":   {"x", policy.Profile{Names: []string{"*.x"}}, `profiles.x: name "*.x" is a wildcard: it belongs into wildcards`},
		"a suffix as a wildcard": {"x", policy.Profile{Wildcards: []string{"**.x"}}, "profiles.x.wildcards: name"},
		"a name as a wildcard":   {"x", policy.Profile{Wildcards: []string{"a.x"}}, `profiles.x.wildcards: name "a.x" is not of the form *.SUFFIX`},
		"a name as a pattern":    {"x", policy.Profile{Patterns: []string{"a.x"}}, "profiles.x.patterns: pattern"},
		"a U-label":              {"x", policy.Profile{Names: []string{"bücher.x"}}, "write its A-label form xn--bcher-kva.x"},
	} {
		_, err := setup.Init(t.Context(), setup.Options{Dir: t.TempDir() + "/pki", PlainKeys: true, Profiles: map[string]policy.Profile{tc.service: tc.profile}})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// A name that a pattern or a wildcard allows is no deviation; one that nothing allows
// is.
func TestDeviationsOfPatterns(t *testing.T) {
	t.Parallel()
	profiles := maps.Clone(patterned())
	c := catest.Start(t, catest.Options{Profiles: profiles})
	cert := enrol(t, c, "gateway", "gateway", "a.gw.internal", "*.apps.internal")
	config := c.Authority.Config()
	if got, err := config.Deviations("gateway", chainOf(t, cert.Certificate)); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	config.Profiles = map[string]policy.Profile{"gateway": {Names: []string{"gateway"}}}
	if got, err := config.Deviations("gateway", chainOf(t, cert.Certificate)); err != nil || !slices.Equal(got, []string{"names changed: - *.apps.internal, - a.gw.internal"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// A certificate with a name that earlier versions accepted and this one refuses is not
// renewed, and the answer says why.
func TestRenewalOfANameThatIsNone(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cert := enrol(t, c, "storage", "storage")
	damage.SQL(t, c.Dir, `UPDATE certificates SET names = '["10.0.0.256"]' WHERE service = 'storage'`)
	status, body := newClient(t, c, cert).do("POST", "/renew", nil)
	if status != http.StatusForbidden || !strings.Contains(message(t, body), `name "10.0.0.256" looks like an IP address and is none: enrol again (rule: names)`) {
		t.Errorf("%d %s", status, body)
	}
}
