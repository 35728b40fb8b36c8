package audit

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// Verdicts on a chain, as far as they are findings.
const (
	chainIncomplete = iota + 1 // an issuer is neither with the leaf nor in the bundle
	chainUntrusted             // it is whole and ends at a root that the bundle does not have
	chainInvalid               // a path exists and breaks a rule
)

// chainCheck makes the check of one verdict.
func chainCheck(verdict int) func(*Subject, criteria) (Severity, string) {
	return func(s *Subject, at criteria) (Severity, string) {
		got, text := chainVerdict(s, at.now)
		if got != verdict {
			return fine, ""
		}
		return Crit, text
	}
}

// chainVerdict verifies the leaf against the bundle. The leaf's own dates are
// other checks' business, so the moment is moved into its life.
func chainVerdict(s *Subject, now time.Time) (verdict int, text string) {
	if s.Bundle == nil || !s.leaf() {
		return 0, ""
	}
	moment := now
	if last := s.Cert.NotAfter.Add(-time.Second); moment.After(last) {
		moment = last
	}
	if moment.Before(s.Cert.NotBefore) {
		moment = s.Cert.NotBefore
	}
	_, err := s.Cert.Verify(x509.VerifyOptions{
		Roots: pool(s.Bundle), Intermediates: pool(s.Chain), CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return 0, ""
	}
	// At another moment than now the dates of its issuers prove nothing.
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired && !moment.Equal(now) {
		return 0, ""
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		return chainInvalid, "the chain does not verify: " + err.Error()
	}
	top := topOf(s.Cert, s.Chain)
	if selfIssued(top) {
		return chainUntrusted, "its root " + name(top) + " is not in the trust bundle"
	}
	return chainIncomplete, "chain incomplete: " + issuerName(top) + " is neither with it nor in the trust bundle"
}

// chainOrder judges the order in which certificates lie or were sent. One that
// is missing is the business of another check, and so are those that lead nowhere.
func chainOrder(s *Subject, _ criteria) (Severity, string) {
	if !s.leaf() || len(s.order) == 0 {
		return fine, ""
	}
	if first := s.order[0]; first.IsCA {
		return Warn, "the leaf is not first: " + name(first) + " stands before it"
	}
	c := s.Cert
	for i, next := range s.order[1:] {
		named := func(issuer *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, issuer.RawSubject) }
		if named(next) {
			c = next
			continue
		}
		if !selfIssued(c) && slices.ContainsFunc(s.order[i+2:], named) {
			return Warn, "the chain is out of order: " + name(next) + " stands before " + issuerName(c)
		}
		break
	}
	return fine, ""
}

// topOf follows the issuers from c through certs as far as they go.
func topOf(c *x509.Certificate, certs []*x509.Certificate) *x509.Certificate {
	for range certs { // a longer path would be a circle
		if selfIssued(c) {
			break
		}
		next := issuerOf(c, certs)
		if next == nil {
			break
		}
		c = next
	}
	return c
}

// issuerOf finds the certificate whose key signed c, or nil.
func issuerOf(c *x509.Certificate, certs []*x509.Certificate) *x509.Certificate {
	for _, i := range certs {
		if bytes.Equal(c.RawIssuer, i.RawSubject) && c.CheckSignatureFrom(i) == nil {
			return i
		}
	}
	return nil
}

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool() // never the system's roots: internal peers have none there
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}
