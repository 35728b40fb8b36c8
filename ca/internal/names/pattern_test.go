package names_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/names"
)

func TestParsePattern(t *testing.T) {
	for text, want := range map[string]string{ // canonical form, or what the error says
		"*.Workers.internal":      "*.workers.internal",
		"**.artstore_internal":    "**.artstore_internal",
		"10.20.0.0/16":            "10.20.0.0/16",
		"FD00:0:0::/48":           "fd00::/48",
		"spiffe://ArtStore/w/*":   "spiffe://artstore/w/*",
		"spiffe://artstore/**":    "spiffe://artstore/**",
		".artstore.internal":      "!write **.artstore.internal",
		"worker.internal":         "!belongs into names",
		"w*.internal":             "!belongs into names",
		"*":                       "!would stand for every name",
		"**.":                     "!would stand for every name",
		"*.*.internal":            `!one "*" as the whole left-most label`,
		"*.bücher.example":        "!write its A-label form xn--bcher-kva.example",
		"**.xn--a.example":        "!is no A-label",
		"*.0.0.0.1":               "!looks like an IP address",
		"10.20.0.1/16":            "!write 10.20.0.0/16",
		"0.0.0.0/0":               "!every address",
		"::/0":                    "!every address",
		"10.0.0.0/33":             "!not a network",
		"::ffff:10.0.0.0/104":     "!write it as IPv4",
		"https://a/*":             "!is not spiffe://",
		"spiffe://a/w":            "!is not spiffe://",
		"spiffe://a/*/w":          "!is not spiffe://",
		"spiffe://*/w":            "!is not spiffe://",
		"spiffe://*/w/*":          "!no valid SPIFFE ID",
		"spiffe://a//*":           "!no valid SPIFFE ID",
		"spiffe://a/../*":         "!no valid SPIFFE ID",
		"spiffe://a/%2e%2e/*":     "!no valid SPIFFE ID",
		"spiffe://a:1/w/*":        "!no valid SPIFFE ID",
		strings.Repeat("*", 3000): "!longer than",
	} {
		p, err := names.ParsePattern(text)
		if say, refused := strings.CutPrefix(want, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), say) {
				t.Errorf("%.60q: %v, want an error with %q", text, err, say)
			}
		} else if err != nil || p.String() != want {
			t.Errorf("%q: %q, %v; want %q", text, p, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern  string
		yes, not []string
	}{
		{"*.w.internal", []string{"a.w.internal", "a_1.w.internal"}, []string{"w.internal", "a.b.w.internal", "aw.internal", "a.w.internal.x", "*.w.internal", "spiffe://a.w.internal"}},
		{"**.w.internal", []string{"a.w.internal", "c.b.a.w.internal"}, []string{"w.internal", "aw.internal", "*.w.internal", "*.a.w.internal"}},
		{"**.5", []string{"a.5"}, []string{"10.0.0.5"}},
		{"10.20.0.0/16", []string{"10.20.0.0", "10.20.255.255"}, []string{"10.21.0.0", "::ffff:10.20.0.1", "a.10.20.0.0", "10.20"}},
		{"fd00::/64", []string{"fd00::1"}, []string{"fd00:0:0:1::1", "10.0.0.1"}},
		{"10.0.0.7/32", []string{"10.0.0.7"}, []string{"10.0.0.8"}},
		{"spiffe://a/w/*", []string{"spiffe://a/w/x", "spiffe://a/w/..."}, []string{
			"spiffe://a/w", "spiffe://a/w/", "spiffe://a/w/x/y", "spiffe://a/w/..", "spiffe://a/w/x%2Fy", "spiffe://a/wx", "spiffe://ab/w/x", "https://a/w/x",
		}},
		{"spiffe://a/**", []string{"spiffe://a/w", "spiffe://a/w/x"}, []string{"spiffe://a", "spiffe://a/", "spiffe://a/w/../x", "spiffe://a//x", "spiffe://a/x/", "spiffe://a.b/x"}},
	} {
		p, err := names.ParsePattern(tc.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tc.yes {
			if canonical, err := names.Canonical(name); err != nil || canonical != name || !p.Match(name) {
				t.Errorf("%s does not stand for %q (canonical %q, %v)", tc.pattern, name, canonical, err)
			}
		}
		for _, name := range tc.not {
			if p.Match(name) {
				t.Errorf("%s stands for %q", tc.pattern, name)
			}
		}
	}
}

// outside is an independent reading of the five forms of a pattern: regular
// expressions and net.IPNet instead of cuts and prefixes.
func outside(pattern, name string) bool {
	const label, segment = `[a-z0-9_-]{1,63}`, `[A-Za-z0-9._-]+`
	if _, n, err := net.ParseCIDR(pattern); err == nil {
		ip := net.ParseIP(name)
		return ip == nil || !n.Contains(ip)
	}
	if net.ParseIP(name) != nil {
		return true
	}
	var expr string
	switch {
	case strings.HasPrefix(pattern, "spiffe://"):
		base := pattern[:strings.LastIndexByte(pattern, '/')]
		expr = regexp.QuoteMeta(base) + `(/` + segment + `)`
		if slices.Contains(strings.Split(name, "/"), "..") || slices.Contains(strings.Split(name, "/"), ".") {
			return true
		}
	default:
		expr = `(` + label + `\.)` + regexp.QuoteMeta(strings.TrimLeft(pattern, "*.")) // its suffix
	}
	if strings.HasSuffix(pattern, "/**") {
		expr += "+"
	} else if strings.HasPrefix(pattern, "**") {
		expr = strings.Replace(expr, `\.)`, `\.)+`, 1)
	}
	return !regexp.MustCompile(`^` + expr + `$`).MatchString(name)
}

// FuzzPattern: whatever pattern and name are, a pattern stands for no name that an
// independent implementation of its rule leaves outside, and for each that it has
// inside; and a pattern that was read is read again from its own text.
func FuzzPattern(f *testing.F) {
	for _, p := range []string{"*.w.internal", "**.w", "10.20.0.0/16", "fd00::/64", "spiffe://a/w/*", "spiffe://a/**", "*.5", "**.0.0.5"} {
		for _, n := range []string{"a.w.internal", "a.b.w", "10.20.3.4", "fd00::9", "spiffe://a/w/x", "spiffe://A/w/../x", "*.w", "10.0.0.5", "_.w"} {
			f.Add(p, n)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := names.ParsePattern(pattern)
		if err != nil {
			return
		}
		if again, err := names.ParsePattern(p.String()); err != nil || again != p {
			t.Fatalf("%q: read again: %v, %v", pattern, again, err)
		}
		canonical, err := names.Canonical(name)
		if err != nil {
			return
		}
		if p.Match(canonical) == outside(p.String(), canonical) {
			t.Errorf("%q stands for %q: %v", p, canonical, p.Match(canonical))
		}
	})
}

// For random claims over few labels, Overlaps names exactly the pairs of owners
// for which a name exists that both patterns stand for.
func TestOverlaps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(list []string) string { return list[rnd.IntN(len(list))] }
	patterns := []string{
		"*.x", "**.x", "*.a.x", "**.a.x", "*.b", "**.b.x", "10.0.0.0/30", "10.0.0.2/31", "fd00::/127",
		"spiffe://x/*", "spiffe://x/**", "spiffe://x/a/*", "spiffe://x/a/**",
	}
	world := []string{ // every name that two of these could share
		"a.x", "b.x", "c.a.x", "d.c.a.x", "e.b.x", "e.e.b.x", "c.b", "10.0.0.0", "10.0.0.2", "fd00::1", "spiffe://x/a", "spiffe://x/a/b", "spiffe://x/a/b/c", "spiffe://x/b", "x",
	}
	for range 2000 {
		var claims []names.Claim
		for i := range 3 {
			c := names.Claim{Owner: fmt.Sprint(i)}
			for range 2 {
				p, err := names.ParsePattern(pick(patterns))
				if err != nil {
					t.Fatal(err)
				}
				c.Patterns, c.Names = append(c.Patterns, p), append(c.Names, pick(world))
			}
			claims = append(claims, c)
		}
		var want, got []string
		for i, a := range claims {
			for _, b := range claims[i+1:] {
				if slices.ContainsFunc(world, func(n string) bool { return share(a, b, n) }) {
					want = append(want, a.Owner+b.Owner)
				}
			}
		}
		for _, o := range names.Overlaps(claims, 100) {
			got = append(got, min(o.Owner, o.Other)+max(o.Owner, o.Other))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%v: %q, want %q", claims, got, want)
		}
	}
}

// share: both may have the name, and at least one of them by a pattern.
func share(a, b names.Claim, name string) bool {
	matches := func(c names.Claim) bool {
		return slices.ContainsFunc(c.Patterns, func(p names.Pattern) bool { return p.Match(name) })
	}
	return matches(a) && (matches(b) || slices.Contains(b.Names, name)) || matches(b) && slices.Contains(a.Names, name)
}

// A certificate for a wildcard is good for the names below it, whoever's they are.
func TestOverlapsOfWildcards(t *testing.T) {
	deep, err := names.ParsePattern("**.b.x")
	if err != nil {
		t.Fatal(err)
	}
	got := names.Overlaps([]names.Claim{
		{Owner: "gateway", Names: []string{"*.b.x"}},
		{Owner: "other", Names: []string{"a.b.x"}},
		{Owner: "third", Names: []string{"a.b.x", "c.a.b.x"}},
		{Owner: "workers", Patterns: []names.Pattern{deep}},
	}, 100)
	var pairs []string
	for _, o := range got {
		pairs = append(pairs, o.Owner+" "+o.Text+" "+o.Other+" "+o.With)
	}
	want := []string{
		"workers **.b.x gateway *.b.x", "gateway *.b.x other a.b.x", "workers **.b.x other a.b.x", "gateway *.b.x third a.b.x", "workers **.b.x third a.b.x",
	}
	if !slices.Equal(pairs, want) {
		t.Errorf("%q", pairs)
	}
	if n := len(names.Overlaps([]names.Claim{{Owner: "a", Patterns: []names.Pattern{deep}}, {Owner: "b", Patterns: []names.Pattern{deep}}, {Owner: "c", Patterns: []names.Pattern{deep}}}, 2)); n != 2 {
		t.Errorf("%d, want the 2 of the limit", n)
	}
}
