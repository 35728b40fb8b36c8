package enroll_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// TestRealDelivered: what a program finds served is in the record of the authority within
// seconds, although a request is held already, and a renewed certificate has a report of its own.
func TestRealDelivered(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	src, err := enroll.New(enroll.Config{URL: authority.URL, RootFingerprint: authority.RootFingerprint, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester")), TrustRefresh: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan rotation.Material, 8), make(chan struct{})
	go func() {
		defer close(done)
		_ = src.Watch(ctx, func(m rotation.Material) error { got <- m; return nil }) // returns the error of ctx
	}()
	defer func() { cancel(); <-done }()
	first := (<-got).Certificate.Leaf
	serial := first.SerialNumber.String()
	awaitTrue(t, "the request is held", func() bool { return src.Status().Watching })
	if d := recordedDelivery(t, authority, serial); d != nil {
		t.Fatalf("before any report: %+v", d)
	}
	proved := time.Now().Add(-time.Minute)
	src.Delivered(first, nil, proved) // without an address there is nothing to report
	src.Delivered(first, []string{"postgres://admin:secret@db:5432/x?password=secret", "other:443"}, proved)
	awaitTrue(t, "the report", func() bool { return recordedDelivery(t, authority, serial) != nil })
	d := recordedDelivery(t, authority, serial)
	if d.Address != "postgres://db:5432" || d.Servers != 2 || d.Since.Before(first.NotBefore) || d.Since.After(time.Now()) {
		t.Errorf("%+v", d)
	}
	src.Delivered(first, []string{"db:5432"}, time.Now())
	awaitTrue(t, "the next report", func() bool { return recordedDelivery(t, authority, serial).Address == "db:5432" })
	authority.Check(t)
}

// recordedDelivery returns what the record of an authority has of a certificate.
func recordedDelivery(t *testing.T, authority *catest.CA, serial string) *record.Delivery {
	t.Helper()
	rec, err := ca.StateDir(authority.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rec.Close() }() // read only
	c, err := rec.Show(t.Context(), serial)
	if err != nil {
		t.Fatal(err)
	}
	return c.Served
}

// awaitTrue waits until something is so.
func awaitTrue(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// TestBareAddress: a URL may have a password, which is not reported, and what could be an
// instruction to a terminal is no address.
func TestBareAddress(t *testing.T) {
	for address, want := range map[string]string{
		"localhost:443":       "localhost:443",
		"[::1]:443":           "[::1]:443",
		"https://web.example": "https://web.example",
		"postgres://user:pass@db:5432/x?password=y#z": "postgres://db:5432",
		"https://user:pa%zzss@web":                    "",
		"a b:443":                                     "",
		"\x1b[2J:443":                                 "",
		strings.Repeat("a", 301):                      "",
	} {
		if got := enroll.BareAddress(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}

// TestRealReport: a program that ends reports by a request of its own.
func TestRealReport(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	cfg := enroll.Config{URL: authority.URL, RootFingerprint: authority.RootFingerprint, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))}
	src, err := enroll.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := src.Report(t.Context()); err != nil {
		t.Errorf("without anything to report: %v", err)
	}
	m, err := enroll.Issue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	leaf := m.Certificate.Leaf
	src.Delivered(leaf, []string{"db:5432"}, time.Now())
	if err := src.Report(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := recordedDelivery(t, authority, leaf.SerialNumber.String()); d == nil || d.Address != "db:5432" || d.Servers != 1 {
		t.Errorf("recorded: %+v", d)
	}
	cfg.Dir = t.TempDir()
	if src, err = enroll.New(cfg); err != nil {
		t.Fatal(err)
	}
	src.Delivered(leaf, []string{"db:5432"}, time.Now())
	if err := src.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "reporting what is served: ") {
		t.Errorf("without a certificate: %v", err)
	}
	authority.Check(t)
}
