package ca

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.step.sm/crypto/keyutil"

	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	// longestWait bounds each sleep: timers stand still while a machine is suspended, and
	// the wall clock does not.
	longestWait = time.Minute
	firstRetry  = time.Second // doubles with each failure, up to longestWait
	leastRest   = 100 * time.Millisecond
	longestRest = 10 * time.Second
)

// ServerIdentity is what the listener of the authority needs.
type ServerIdentity struct {
	// Certificate has the chain of the leaf, and then all roots: a client that knows only
	// the fingerprint of a root finds that root in the handshake and verifies the rest
	// against it. RFC 8446 §4.4.2 allows the extra certificates.
	Certificate tls.Certificate
	// Roots verify client certificates.
	Roots []*x509.Certificate
	// Revoked are the newest lists, at most one for each issuer.
	Revoked []*x509.RevocationList
	// Issuers are the certificates that have signed Revoked.
	Issuers []*x509.Certificate
}

// Watch yields the server certificate of the authority itself with the trust bundle and
// the revocation lists: at once; before each expiry; as soon as the issuer, the names,
// the lifetime or the roots change; as soon as this process revokes; and within a minute
// after another process has revoked. A server certificate that was revoked is replaced at
// once. Each certificate has a new key, which is in memory only.
//
// Watch blocks until ctx ends and then returns nil. It returns an error only if the first
// certificate could not be made. Later errors, also those of yield, are logged and
// retried.
func (a *Authority) Watch(ctx context.Context, yield func(ServerIdentity) error) error {
	w := &watcher{a: a}
	good, retry := false, firstRetry
	for {
		// The channel is taken before the record is read. A revocation after that closes it.
		st, revoked, began := a.state.Load(), a.revokes.next(), time.Now()
		err := w.look(ctx, st, yield)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is the normal end
		}
		due := began.Add(longestWait)
		switch {
		case err == nil:
			good, retry = true, firstRetry
			if w.renewAt.Before(due) {
				due = w.renewAt
			}
		case !good:
			return fmt.Errorf("getting the authority's own certificate: %w", err)
		default:
			a.logger.WarnContext(ctx, "own certificate not renewed, will retry", "service", policy.AuthorityService, "err", err)
			due = began.Add(retry)
			retry = min(2*retry, longestWait)
		}
		// The pause is after the wake-up: a client that has revoked the certificate of its own
		// connection gets the answer before the listener cuts the connection.
		rest := w.rest()
		if !waitUntil(ctx, due.Add(-rest), st.superseded, revoked) || !waitUntil(ctx, time.Now().Add(rest), st.superseded) {
			return nil
		}
	}
}

// watcher is the state of one Watch.
type watcher struct {
	a       *Authority
	cert    tls.Certificate // Leaf is nil before the first certificate
	made    basis           // what cert was made from
	roots   []*x509.Certificate
	renewAt time.Time
	lists   crl.Parsed
	unsent  bool          // yield has not accepted the newest values
	spent   time.Duration // time that the last call of look has used for lists
}

// rest returns how long to wait after a revocation before the lists are read again. Long
// lists take time to read: while certificates are revoked one after the other, this costs
// a twentieth of a core at most.
func (w *watcher) rest() time.Duration { return min(max(leastRest, 20*w.spent), longestRest) }

// basis is all that the certificate of the authority itself depends on. A reload that
// does not change it needs no new certificate.
type basis struct {
	issuer string // DER
	names  string
	life   time.Duration
	crlURL string
}

func (st *state) ownBasis() basis {
	return basis{string(st.intermediates[0].Raw), strings.Join(st.config.DNSNames, " "), st.rules.Own.Lifetimes.Default, st.config.CRLURL}
}

// look brings certificate, roots and lists up to date, and yields them if one has changed
// or if yield has failed before.
func (w *watcher) look(ctx context.Context, st *state, yield func(ServerIdentity) error) error {
	changed, err := w.lists.Refresh(func(c *x509.Certificate) (*crl.List, error) { return w.a.listOf(ctx, st, c) }, st.issuers(), st.roots)
	w.spent = w.lists.Spent
	if err != nil {
		// The other lists were read, and the old ones go on: the certificate is renewed anyway.
		w.a.logger.WarnContext(ctx, "revoked lists of the own listener not refreshed, will retry", "err", err)
	}
	w.unsent = w.unsent || changed
	if changed && w.lists.Has(w.cert.Leaf) {
		w.a.logger.WarnContext(ctx, "own certificate was revoked, renewing", "service", policy.AuthorityService, "serial", certs.Serial(w.cert.Leaf))
		w.renewAt = time.Time{}
	}
	if w.cert.Leaf == nil || !time.Now().Before(w.renewAt) || w.made != st.ownBasis() {
		received := time.Now()
		cert, err := w.a.issueOwn(ctx, st)
		if err != nil {
			return err
		}
		w.cert, w.made, w.unsent = cert, st.ownBasis(), true
		w.renewAt = lifetime.RenewAt(received, cert.Leaf.NotAfter, mrand.Float64()) //nolint:gosec // G404: jitter, not a secret
	}
	if !slices.EqualFunc(w.roots, st.roots, (*x509.Certificate).Equal) {
		w.roots, w.unsent = st.roots, true
	}
	if !w.unsent {
		return nil
	}
	served := w.cert
	served.Certificate = slices.Clone(w.cert.Certificate)
	for _, root := range w.roots {
		served.Certificate = append(served.Certificate, root.Raw)
	}
	lists, issuers := w.lists.All()
	defer func(began time.Time) { w.spent += time.Since(began) }(time.Now())
	err = yield(ServerIdentity{Certificate: served, Roots: slices.Clone(w.roots), Revoked: lists, Issuers: issuers})
	w.unsent = err != nil
	return err
}

// waitUntil waits for a moment of the wall clock or for one of at most two channels. It
// returns false if ctx has ended.
func waitUntil(ctx context.Context, due time.Time, wake ...<-chan struct{}) bool {
	due = due.Round(0)           // drops the monotonic reading, so that the wall clock is compared
	var one, two <-chan struct{} // nil channels are never ready
	if len(wake) > 0 {
		one = wake[0]
	}
	if len(wake) > 1 {
		two = wake[1]
	}
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
		case <-one:
			timer.Stop()
			return true
		case <-two:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
}

// issueOwn issues a certificate to the authority itself, by the same rules and into the
// same record as for services. The chain has no root; look adds the roots.
func (a *Authority) issueOwn(ctx context.Context, st *state) (tls.Certificate, error) {
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
	done, err := a.issue(ctx, st, verifiedRequest{
		caller: caller{kind: callerAuthority, name: "the authority", service: policy.AuthorityService},
		action: actSign, names: st.rules.Own.Names, key: key.Public(), keyHash: certs.KeyHash(csr.RawSubjectPublicKeyInfo),
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	cert := tls.Certificate{Leaf: done.leaf, PrivateKey: key, Certificate: [][]byte{done.leaf.Raw}}
	for _, c := range done.chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// broadcast wakes all goroutines that wait for the next event.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{} // closed by the next event; nil if nobody waits
}

// next returns a channel that the next call of send closes.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
