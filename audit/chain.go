package audit

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// verdict is what there is to say of a chain; zero before somebody has asked.
type verdict int

const (
	chainFine       verdict = iota + 1
	chainIncomplete         // an issuer is neither with the leaf nor in the bundle
	chainUntrusted          // it is whole and ends at a root that the bundle does not have
	chainInvalid            // a path exists and breaks a rule
)

// chainCheck makes the check of one verdict. Whichever comes first verifies: that costs more than all else.
func chainCheck(v verdict) func(*Subject, criteria) (Severity, string) {
	return func(s *Subject, at criteria) (Severity, string) {
		if s.verdict == 0 {
			s.verdict, s.verdictText = chainVerdict(s, at)
		}
		if s.verdict != v {
			return fine, ""
		}
		return Crit, s.verdictText
	}
}

// chainVerdict verifies the leaf against the bundle. The leaf's own dates are
// other checks' business, so the moment is moved into its life.
func chainVerdict(s *Subject, at criteria) (v verdict, text string) {
	if s.Bundle == nil || !s.leaf() {
		return chainFine, ""
	}
	moment := at.now
	if last := s.Cert.NotAfter.Add(-time.Second); moment.After(last) {
		moment = last
	}
	if moment.Before(s.Cert.NotBefore) {
		moment = s.Cert.NotBefore
	}
	_, err := s.Cert.Verify(x509.VerifyOptions{
		Roots: at.pools.of(s.Bundle), Intermediates: at.pools.of(s.Chain), CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return chainFine, ""
	}
	// At another moment than now the dates of its issuers prove nothing.
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok && bad.Reason == x509.Expired && !moment.Equal(at.now) {
		return chainFine, ""
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

// pools keeps the pool of a list that many leaves share: in one file with
// thousands of each, making it anew for every leaf is all that an audit would do.
type pools map[listID]*x509.CertPool

// listID tells lists apart without looking at what is in them.
type listID struct {
	first **x509.Certificate
	size  int
}

func (p pools) of(certs []*x509.Certificate) *x509.CertPool {
	if len(certs) == 0 {
		return pool(nil)
	}
	id := listID{&certs[0], len(certs)}
	if p[id] == nil {
		p[id] = pool(certs)
	}
	return p[id]
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool() // never the system's roots: internal peers have none there
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}
