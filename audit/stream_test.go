package audit_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
)

// Rows come in the order of the walk, however pieces of it overtake each other.
func TestOrder(t *testing.T) {
	root, _, leaf := hierarchy(t)
	files := map[string][]byte{"ca.crt": encode(root), "z/big.pem": append(encode(leaf), strings.Repeat("#\n", 1<<20)...)}
	want := []string{}
	for i := range 300 {
		name := fmt.Sprintf("a/%03d.crt", i)
		files[name], want = encode(leaf), append(want, name)
	}
	files["a/b/x.crt"] = encode(leaf)
	want = append(want, "a/b/x.crt", "z/big.pem", "ca.crt")
	dir := write(t, files)
	for range 3 {
		var got []string
		out := rows(func(r *audit.Row) error {
			rel, err := filepath.Rel(dir, r.Place)
			got = append(got, rel)
			return err
		})
		_, err := audit.Run(t.Context(), audit.Config{Report: out, Sources: []audit.Source{paths(dir)}})
		must(t, err)
		if !slices.Equal(got, want) {
			t.Fatalf("%v", got)
		}
	}
}

// rows is a renderer.
type rows func(*audit.Row) error

func (f rows) Row(r *audit.Row) error   { return f(r) }
func (f rows) End(*audit.Summary) error { return nil }

// A report that cannot be written ends the audit.
func TestBrokenReport(t *testing.T) {
	_, _, leaf := hierarchy(t)
	dir := t.TempDir()
	for i := range 500 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.crt", i)), encode(leaf), 0o600))
	}
	broken := errors.New("no space left on device")
	n := 0
	_, err := audit.Run(t.Context(), audit.Config{Sources: []audit.Source{paths(dir)}, Report: rows(func(*audit.Row) error { n++; return broken })})
	if !errors.Is(err, broken) || n != 1 {
		t.Errorf("%v after %d rows", err, n)
	}
	if _, err := report.New("yaml", nil, report.Terminal{}); err == nil || !strings.Contains(err.Error(), "table, wide, json") {
		t.Errorf("%v", err)
	}
}

func TestGlobs(t *testing.T) {
	root, _, leaf := hierarchy(t)
	dir := write(t, map[string][]byte{
		"ca.pem": encode(root), "a.crt": encode(leaf), "b.pem": encode(leaf), "x/y/c.crt": encode(leaf), "old/d.crt": encode(leaf), "x/old/e.crt": encode(leaf),
	})
	for _, c := range []struct {
		include, exclude []string
		want             string
	}{
		{nil, nil, "a.crt b.pem ca.pem old/d.crt x/old/e.crt x/y/c.crt"},
		{[]string{"*.crt"}, nil, "a.crt old/d.crt x/old/e.crt x/y/c.crt"},
		{[]string{"*.crt"}, []string{"old"}, "a.crt x/y/c.crt"},
		{[]string{"x/**/*.crt", "b.*"}, []string{"x/old"}, "b.pem x/y/c.crt"},
		{nil, []string{"**/*.crt"}, "b.pem ca.pem"},
		{[]string{"[", "nothing"}, nil, ""},
	} {
		r := run(t, source.Targets{Names: []string{dir}, Include: c.include, Exclude: c.exclude})
		var got []string
		for place, state := range states(t, r, dir) {
			if strings.HasPrefix(state, "ERROR") {
				place = ""
			}
			got = append(got, place)
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%v %v: %q, want %q", c.include, c.exclude, text, c.want)
		}
	}
}

// A path to a root that was verified once is not taken for one that is not there.
func TestKnownPaths(t *testing.T) {
	root, upper, _ := hierarchy(t)
	lower := newPair(t, upper, "Lower", authority)
	brief := newPair(t, root, "Brief", authority, lives(Day, 10*Day))
	limited := newPair(t, root, "Limited", authority, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"inside"}
	})
	forger := newPair(t, nil, "Lower", authority)
	leaf := func(issuer *pair, specs ...spec) *pair { return newPair(t, issuer, "svc", specs...) }
	files := map[string][]byte{
		"ca.crt": encode(root), "1.crt": encode(leaf(lower), lower, upper), "2.crt": encode(leaf(lower), lower, upper), "3.crt": encode(leaf(lower), lower),
		"4.crt": encode(leaf(forger), lower, upper), "5.crt": encode(leaf(lower), upper),
		"6.crt": encode(leaf(limited, named("a.inside")), limited), "7.crt": encode(leaf(limited, named("a.outside")), limited),
		"8.crt": encode(leaf(brief, lives(time.Hour, 30*Day)), brief), "9.crt": encode(leaf(brief, lives(time.Hour, 30*Day)), brief),
	}
	dir := write(t, files)
	for at, late := range map[time.Duration]string{0: "OK", 20 * Day: "CRIT chain-invalid"} {
		now := func() time.Time { return time.Now().Add(at) }
		r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{paths(dir)}, Now: now, Only: []string{"chain-incomplete", "untrusted", "chain-invalid"}})
		must(t, err)
		got := states(t, r, dir)
		for place := range got {
			if strings.Contains(place, "#") {
				delete(got, place)
			}
		}
		want(t, got, map[string]string{
			"ca.crt": "OK", "1.crt": "OK", "2.crt": "OK", "3.crt": "CRIT chain-incomplete", "4.crt": "CRIT chain-incomplete", "5.crt": "CRIT chain-incomplete",
			"6.crt": "OK", "7.crt": "CRIT chain-invalid", "8.crt": late, "9.crt": late,
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, _, leaf := hierarchy(t)
	dir := write(t, map[string][]byte{"a.crt": encode(leaf), "b/c.crt": encode(leaf)})
	source := interrupting{paths(dir), cancel}
	if _, err := audit.Run(ctx, audit.Config{Sources: []audit.Source{source}, Report: rows(func(*audit.Row) error { return nil })}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// interrupting ends the audit at its first subject.
type interrupting struct {
	audit.Source
	cancel func()
}

func (i interrupting) Collect(ctx context.Context, yield func(audit.Subject)) {
	i.Source.Collect(ctx, func(s audit.Subject) { i.cancel(); yield(s) })
}
