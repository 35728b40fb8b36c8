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
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
)

// Rows come in the order of the walk, although its pieces end in another order.
func TestOrder(t *testing.T) {
	root, _, leaf := certtest.Hierarchy(t)
	files := map[string][]byte{"ca.crt": certtest.Encode(root), "z/big.pem": append(certtest.Encode(leaf), strings.Repeat("#\n", 1<<20)...)}
	want := []string{}
	for i := range 300 {
		name := fmt.Sprintf("a/%03d.crt", i)
		files[name], want = certtest.Encode(leaf), append(want, name)
	}
	files["a/b/x.crt"] = certtest.Encode(leaf)
	want = append(want, "a/b/x.crt", "z/big.pem", "ca.crt")
	dir := certtest.Write(t, files)
	for range 3 {
		var got []string
		out := rows(func(r *audit.Row) error {
			rel, err := filepath.Rel(dir, r.Place)
			got = append(got, rel)
			return err
		})
		_, err := audit.Run(t.Context(), audit.Config{Report: out, Sources: []audit.Source{audittest.Paths(dir)}})
		certtest.Must(t, err)
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
	_, _, leaf := certtest.Hierarchy(t)
	dir := t.TempDir()
	for i := range 500 {
		certtest.Must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.crt", i)), certtest.Encode(leaf), 0o600))
	}
	broken := errors.New("no space left on device")
	n := 0
	_, err := audit.Run(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(dir)}, Report: rows(func(*audit.Row) error { n++; return broken })})
	if !errors.Is(err, broken) || n != 1 {
		t.Errorf("%v after %d rows", err, n)
	}
	if _, err := report.New("yaml", nil, report.Terminal{}); err == nil || !strings.Contains(err.Error(), "table, wide, json") {
		t.Errorf("%v", err)
	}
}

// A chain that was verified for one leaf is not used for a leaf with another chain.
func TestKnownPaths(t *testing.T) {
	root, upper, _ := certtest.Hierarchy(t)
	lower := certtest.New(t, upper, "Lower", certtest.Authority)
	brief := certtest.New(t, root, "Brief", certtest.Authority, certtest.Lives(certtest.Day, 10*certtest.Day))
	limited := certtest.New(t, root, "Limited", certtest.Authority, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"inside"}
	})
	forger := certtest.New(t, nil, "Lower", certtest.Authority)
	leaf := func(issuer *certtest.Pair, specs ...certtest.Spec) *certtest.Pair {
		return certtest.New(t, issuer, "svc", specs...)
	}
	files := map[string][]byte{
		"ca.crt": certtest.Encode(root), "1.crt": certtest.Encode(leaf(lower), lower, upper), "2.crt": certtest.Encode(leaf(lower), lower, upper), "3.crt": certtest.Encode(leaf(lower), lower),
		"4.crt": certtest.Encode(leaf(forger), lower, upper), "5.crt": certtest.Encode(leaf(lower), upper),
		"6.crt": certtest.Encode(leaf(limited, certtest.Named("a.inside")), limited), "7.crt": certtest.Encode(leaf(limited, certtest.Named("a.outside")), limited),
		"8.crt": certtest.Encode(leaf(brief, certtest.Lives(time.Hour, 30*certtest.Day)), brief), "9.crt": certtest.Encode(leaf(brief, certtest.Lives(time.Hour, 30*certtest.Day)), brief),
	}
	dir := certtest.Write(t, files)
	for at, late := range map[time.Duration]string{0: "OK", 20 * certtest.Day: "CRIT chain-invalid"} {
		now := func() time.Time { return time.Now().Add(at) }
		r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(dir)}, Now: now, Only: []string{"chain-incomplete", "untrusted", "chain-invalid"}})
		certtest.Must(t, err)
		got := audittest.States(t, r, dir)
		for place := range got {
			if strings.Contains(place, "#") {
				delete(got, place)
			}
		}
		audittest.Want(t, got, map[string]string{
			"ca.crt": "OK", "1.crt": "OK", "2.crt": "OK", "3.crt": "CRIT chain-incomplete", "4.crt": "CRIT chain-incomplete", "5.crt": "CRIT chain-incomplete",
			"6.crt": "OK", "7.crt": "CRIT chain-invalid", "8.crt": late, "9.crt": late,
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, _, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"a.crt": certtest.Encode(leaf), "b/c.crt": certtest.Encode(leaf)})
	source := interrupting{audittest.Paths(dir), cancel}
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
