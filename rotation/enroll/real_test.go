package enroll_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// These tests run against the project's own authority, with its record on disk.

func TestRealIssueRenewRevoke(t *testing.T) {
	t.Parallel()
	authority := catest.Start(t, catest.Options{})
	ctx := t.Context()
	cfg := enroll.Config{URL: authority.URL, RootFingerprint: authority.RootFingerprint, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))}
	first, err := enroll.Issue(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	authority.Check(t)
	second, err := enroll.Renew(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	authority.Check(t)
	if first.Version == second.Version || second.Certificate.Leaf.Subject.CommonName != "ingester" {
		t.Errorf("renewed %s to %s for %s", first.Version, second.Version, second.Certificate.Leaf.Subject)
	}
	c, err := enroll.NewClient(authority.URL, second.Roots, &second.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Health(ctx), c.Revoke(ctx, second.Version, 1, secret.String{})); err != nil {
		t.Error(err)
	}
	var refused *enroll.Error
	if _, err := enroll.Renew(ctx, cfg); !errors.As(err, &refused) || refused.Status/100 != 4 {
		t.Errorf("renewal of a revoked certificate: %v", err)
	}
	authority.Check(t)
}

// TestRealRevokedAndExpired expects that a revocation reaches another service with its
// next refresh, and that an expired certificate is renewed without a token.
func TestRealRevokedAndExpired(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	authority := catest.Start(t, catest.Options{Lifetime: 20 * time.Second})
	ctx := t.Context()
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))}
	if _, err := enroll.Issue(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	other, err := enroll.Issue(ctx, enroll.Config{URL: authority.URL, InMemory: true, Token: once(authority.Token(t, "query-module", "query-module"))})
	if err != nil {
		t.Fatal(err)
	}
	c, err := enroll.NewClient(authority.URL, other.Roots, &other.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Revoke(ctx, other.Version, 1, secret.String{}); err != nil {
		t.Fatal(err)
	}
	renewed, err := enroll.Renew(ctx, cfg)
	if err != nil || !isRevoked(renewed, other.Certificate.Leaf) {
		t.Errorf("the revocation did not arrive: %d lists, %v", len(renewed.Revoked), err)
	}
	timer := time.NewTimer(time.Until(renewed.Certificate.Leaf.NotAfter) + 1100*time.Millisecond)
	<-timer.C
	back, err := enroll.Renew(ctx, cfg)
	if err != nil || back.Version == renewed.Version {
		t.Errorf("after its end: %v", err)
	}
	authority.Check(t)
}

// TestRealLostAnswer loses the answer on its way. The same token with the stored key
// gets the same certificate.
func TestRealLostAnswer(t *testing.T) {
	t.Parallel()
	var lose atomic.Bool
	authority := catest.Start(t, catest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if lose.Load() && strings.HasSuffix(r.URL.Path, stepapi.PathSign) {
				next.ServeHTTP(discard{}, r)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	}})
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))}
	lose.Store(true)
	if _, err := enroll.Issue(t.Context(), cfg); err == nil {
		t.Fatal("the lost answer arrived")
	}
	lose.Store(false)
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Errorf("the same token with the same key: %v", err)
	}
	authority.Check(t)
	cfg.Dir = t.TempDir() // another key
	var refused *enroll.Error
	if _, err := enroll.Issue(t.Context(), cfg); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized {
		t.Errorf("the same token with another key: %v", err)
	}
	authority.Check(t)
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// TestRealRotation uses certificates of ten seconds and a rotation.Identity: enrolment,
// renewals, another intermediate, another root.
func TestRealRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	authority := catest.Start(t, catest.Options{Lifetime: 10 * time.Second})
	src, err := enroll.New(enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester"))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	identity, err := rotation.Open(ctx, rotation.Config{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	changes := make(chan *rotation.Generation, 100)
	defer identity.Subscribe(func(c rotation.Change) {
		if c.Err == nil && c.Generation != nil {
			changes <- c.Generation
		}
	})()
	wait := func(what string, ok func(*rotation.Generation) bool) {
		t.Helper()
		for g := identity.Current(); !ok(g); {
			select {
			case g = <-changes:
			case <-ctx.Done():
				t.Fatalf("%s: not seen; status %+v", what, src.Status())
			}
		}
		authority.Check(t)
	}
	first := identity.Current().Leaf()
	wait("a renewal", func(g *rotation.Generation) bool { return !g.Leaf().Equal(first) })
	old := identity.Current().Chain()[1]
	authority.RotateIntermediate(t)
	fingerprint := authority.AddRoot(t)
	wait("the new root", func(g *rotation.Generation) bool { return len(g.Roots()) == 2 })
	wait("the new intermediate", func(g *rotation.Generation) bool { return !g.Chain()[1].Equal(old) })
	old = identity.Current().Chain()[1]
	authority.ActivateRoot(t, fingerprint)
	wait("the new chain", func(g *rotation.Generation) bool { return !g.Chain()[1].Equal(old) })
	if err := identity.Close(); err != nil {
		t.Error(err)
	}
}
