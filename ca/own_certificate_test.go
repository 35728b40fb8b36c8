package ca_test

import (
	"context"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// watched is an authority in a bubble of synctest, with a Watch that runs.
type watched struct {
	dir string
	a   *ca.Authority
	got chan ca.ServerIdentity
}

// watchInBubble opens a new authority in a bubble of synctest, so that a minute takes
// no time.
func watchInBubble(t *testing.T, f func(t *testing.T, w *watched)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
			t.Fatal(err)
		}
		a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		w, done := &watched{dir, a, make(chan ca.ServerIdentity, 100)}, make(chan error, 1)
		go func() { done <- a.Watch(ctx, func(id ca.ServerIdentity) error { w.got <- id; return nil }) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, w)
	})
}

// newest waits until all goroutines are blocked, and returns the last identity, nil if
// there is no new one.
func (w *watched) newest() *ca.ServerIdentity {
	synctest.Wait()
	var last *ca.ServerIdentity
	for {
		select {
		case id := <-w.got:
			last = &id
		default:
			return last
		}
	}
}

// serials returns the serials on the lists.
func serials(id *ca.ServerIdentity) (out []*big.Int) {
	for _, l := range id.Revoked {
		for _, e := range l.RevokedCertificateEntries {
			out = append(out, e.SerialNumber)
		}
	}
	return out
}

// A command, which is another process, revokes the certificate of the authority
// itself. Within a minute the listener has another certificate, and a list with the
// old one.
func TestRevokedOwnCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	watchInBubble(t, func(t *testing.T, w *watched) {
		first := w.newest()
		rec, err := ca.StateDir(w.dir).OpenRecord(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rec.Close() }()
		if n, err := rec.RevokeSet(t.Context(), record.Selection{Service: "ca"}, 0, ""); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Minute)
		second := w.newest()
		if second == nil || second.Certificate.Leaf.Equal(first.Certificate.Leaf) {
			t.Fatal("the own certificate was revoked a minute ago, and there is no other")
		}
		if listed := serials(second); len(listed) != 1 || listed[0].Cmp(first.Certificate.Leaf.SerialNumber) != 0 {
			t.Errorf("the listener has the list %v, want the old serial", listed)
		}
		time.Sleep(10 * time.Minute)
		if again := w.newest(); again != nil {
			t.Errorf("%s was replaced by %s for no reason", second.Certificate.Leaf.SerialNumber, again.Certificate.Leaf.SerialNumber)
		}
	})
}

// A reload makes a new certificate for the listener only if it would have other
// contents.
func TestReloadKeepsOwnCertificate(t *testing.T) {
	t.Parallel()
	watchInBubble(t, func(t *testing.T, w *watched) {
		path := filepath.Join(w.dir, "pki.yaml")
		reload := func(edit func(string) string) *ca.ServerIdentity {
			t.Helper()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			changed := edit(string(data))
			if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := w.a.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			return w.newest()
		}
		same := func(s string) string { return s }
		first := w.newest()
		for range 3 {
			if id := reload(same); id != nil && !id.Certificate.Leaf.Equal(first.Certificate.Leaf) {
				t.Error("a reload that changes nothing made another certificate")
			}
		}
		rec, err := ca.StateDir(w.dir).OpenRecord(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rec.Close() }()
		if all, _, err := rec.List(t.Context(), record.Query{}); err != nil || len(all) != 1 {
			t.Errorf("%d certificates in the record after three reloads, %v; want 1", len(all), err)
		}
		for name, edit := range map[string]func(string) string{
			"lifetime": func(s string) string { return strings.Replace(s, "  default: 24h0m0s", "  default: 12h0m0s", 1) },
			"name":     func(s string) string { return strings.Replace(s, "dns_names: [", `dns_names: ["other.example", `, 1) },
			"crl_url":  func(s string) string { return s + "\ncrl_url: http://ca.example/crl\n" },
		} {
			id := reload(edit)
			if id == nil || id.Certificate.Leaf.Equal(first.Certificate.Leaf) {
				t.Errorf("%s changed, and the certificate did not", name)
				continue
			}
			first = id
		}
		if _, err := w.a.ChangeTrust(t.Context(), "operator", stepapi.TrustChange{Step: stepapi.StepRotateIntermediate}); err != nil {
			t.Fatal(err)
		}
		if id := w.newest(); id == nil || id.Certificate.Leaf.Equal(first.Certificate.Leaf) {
			t.Error("the issuer changed, and the certificate did not")
		}
	})
}
