package ca

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"time"

	"go.step.sm/crypto/keyutil"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	// A sleep is at most this long: timers stand still while a machine is
	// suspended, the clock on the wall does not.
	longestWait = time.Minute
	firstRetry  = time.Second
)

// Watch yields the authority's own server certificate with the trust bundle: at
// once, before each expiry, and as soon as the issuer or the roots change. Each
// certificate has a new key, which lives in memory only. Watch blocks until ctx
// ends and then returns nil; it returns an error only if there was never a good
// certificate. An error of yield is retried like any other.
//
// The chain that is served is the leaf, the intermediate, and then all roots: a
// client that knows only a root's fingerprint finds that root in the handshake
// and verifies the rest against it (RFC 8446 §4.4.2 allows the extra ones).
func (a *Authority) Watch(ctx context.Context, yield func(tls.Certificate, []*x509.Certificate) error) error {
	good, retry := false, firstRetry
	for {
		st := a.state.Load()
		received := time.Now()
		cert, err := a.ownCertificate(ctx, st)
		if err == nil {
			err = yield(cert, slices.Clone(st.roots))
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is the normal end
		}
		var due time.Time
		switch {
		case err == nil:
			good, retry = true, firstRetry
			due = lifetime.RenewAt(received, cert.Leaf.NotAfter, mrand.Float64()) //nolint:gosec // G404: jitter, not a secret
		case !good:
			return fmt.Errorf("getting the authority's own certificate: %w", err)
		default:
			a.logger.WarnContext(ctx, "own certificate not renewed, will retry", "service", ownService, "err", err)
			due = received.Add(retry)
			retry = min(2*retry, longestWait)
		}
		if !waitUntil(ctx, due, st.superseded) {
			return nil
		}
	}
}

// waitUntil waits for a moment on the wall clock or for wake; false means that ctx ended.
func waitUntil(ctx context.Context, due time.Time, wake <-chan struct{}) bool {
	due = due.Round(0) // without its monotonic reading, so that the comparison is by the wall
	for {
		wait := time.Until(due)
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(min(wait, longestWait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-wake:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
}

// ownCertificate issues to the authority itself, through the same door and into
// the same record as for everyone.
func (a *Authority) ownCertificate(ctx context.Context, st *state) (tls.Certificate, error) {
	key, err := keyutil.GenerateSigner("EC", "P-256", 0)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a key: %w", err)
	}
	// A request signed by the key yields the SubjectPublicKeyInfo in the same form as for other callers.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a request: %w", err)
	}
	done, err := a.issue(ctx, st, verified{
		caller: caller{kind: byItself, name: "the authority", service: ownService},
		action: actSign, names: st.rules.own.names, key: key.Public(), keyHash: store.KeyHash(csr.RawSubjectPublicKeyInfo),
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	cert := tls.Certificate{Leaf: done.leaf, PrivateKey: key, Certificate: [][]byte{done.leaf.Raw}}
	for _, c := range slices.Concat(done.chain, st.roots) {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}
