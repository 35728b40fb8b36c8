package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
)

// ErrOtherAuthority reports that no root that is trusted here verifies the server at the
// URL: the authority was replaced, or another server answers. A valid certificate stays in
// use. To replace it, call [Issue] with the same directory and restart the service. An
// expired certificate is also replaced by a token that has the fingerprint of a root of the
// new authority.
var ErrOtherAuthority = errors.New("another authority answers")

// unverified reports whether the roots did not verify the server. Other errors with
// UnknownAuthorityError are about certificates that a verified server has issued.
func unverified(err error) bool {
	_, server := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return server && unknown
}

// reanchor gets a successor of cur if the roots of cur do not verify the authority; refused
// is the error that says so. If the configured roots or fingerprint verify it, cur is
// renewed. Else, if cur has expired, a token that has the fingerprint of another root is
// used.
//
// An unverified server gets no request: no renewal, and no token with the fingerprint of a
// root that it does not have.
func (s *Source) reanchor(ctx context.Context, cur *identity, refused error) (*identity, error) {
	if len(s.cfg.Roots) > 0 || s.pin != nil {
		roots, err := s.trustAnchors(ctx, nil)
		switch {
		case err == nil:
			return s.renewUnder(ctx, cur, roots)
		case isTemporary(err):
			return nil, errors.Join(refused, err)
		}
	}
	end := cur.leaf().NotAfter
	refused = fmt.Errorf("%w at %s, with %s; trusted here are %s: %w", ErrOtherAuthority, s.cfg.URL, servedRoots(refused), describe(cur.roots), refused)
	if s.wallNow().Before(end) {
		return nil, fmt.Errorf("the certificate is valid until %s and given up for no token; to enrol anew, stop this service, use artstore-pki issue --out with this directory, and start it: %w",
			end.UTC().Format(time.RFC3339), refused)
	}
	want, err := s.order(ctx)
	if err == nil {
		err = s.pinsAnother(want, cur)
	}
	if err != nil {
		return nil, errors.Join(refused, fmt.Errorf("enrolling: %w", err))
	}
	roots, err := s.newDialer().bootstrap(ctx, s.cfg.URL, want.pin)
	if err != nil {
		return nil, errors.Join(refused, fmt.Errorf("enrolling: %w", err))
	}
	i := slices.IndexFunc(roots, want.pin.of)
	s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the authority was replaced: its expired certificate is given up for a token that pins another root",
		append(logAttrs(cur, nil), slog.String("old_roots", describe(cur.roots)), slog.String("new_root", describe(roots[i:i+1])))...)
	return s.signWithToken(ctx, want, roots, cur)
}

// renewUnder is replace with other roots than those of cur.
func (s *Source) renewUnder(ctx context.Context, cur *identity, roots []*x509.Certificate) (*identity, error) {
	moved := *cur
	moved.roots = roots
	i, err := s.renew(ctx, &moved)
	if isDenied(err) && s.cfg.Token != nil {
		i, err = s.enrolRefused(ctx, &moved, err)
	}
	if err == nil && i.roots == nil {
		i.roots = roots
	}
	return i, err
}

// pinsAnother returns an error unless the token has the fingerprint of a root that is not
// trusted here yet: the trusted ones were tried.
func (s *Source) pinsAnother(want tokenOrder, cur *identity) error {
	switch {
	case want.pin == nil:
		return errors.New("the token names no root: only one that does can lead to another authority")
	case slices.ContainsFunc(cur.roots, want.pin.of), s.pin != nil && *s.pin == *want.pin:
		return errors.New("the token is of the authority before: it pins a root that does not verify this one")
	}
	return nil
}

// servedRoots returns, for an error, the root that the server has in place of a known one.
func servedRoots(err error) string {
	failed, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(failed.UnverifiedCertificates) == 0 {
		return "an unknown root"
	}
	last := failed.UnverifiedCertificates[len(failed.UnverifiedCertificates)-1]
	if selfSigned(last) {
		return "the root " + certs.Fingerprint(last)
	}
	return fmt.Sprintf("a chain that ends at %q", oneLine(last.Issuer.CommonName))
}
