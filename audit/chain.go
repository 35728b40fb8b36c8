package audit

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
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
	if at.known.through(s, at.now) {
		return chainFine, ""
	}
	moment := at.now
	if last := s.Cert.notAfter.Add(-time.Second); moment.After(last) {
		moment = last
	}
	if moment.Before(s.Cert.notBefore) {
		moment = s.Cert.notBefore
	}
	chains, err := s.Cert.X509().Verify(x509.VerifyOptions{
		Roots: at.pools.of(s.Bundle), Intermediates: at.pools.of(s.Chain), CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		at.known.learn(s, chains)
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
	for _, c := range slices.Concat(s.Chain, s.Bundle) {
		if c.key.oversized() && bytes.Equal(top.issuer, c.subject) {
			return chainInvalid, "the chain was not verified: the key of " + c.name + " is too long (" + c.key.String() + ")"
		}
	}
	if top.selfIssued() {
		return chainUntrusted, "its root " + top.name + " is not in the trust bundle"
	}
	return chainIncomplete, "chain incomplete: " + top.issuerName + " is neither with it nor in the trust bundle"
}

// chainOrder judges the order in which certificates lie or were sent. One that
// is missing is the business of another check, and so are those that lead nowhere.
func chainOrder(s *Subject, _ criteria) (Severity, string) {
	if !s.leaf() || len(s.order) == 0 {
		return fine, ""
	}
	if first := s.order[0]; first.isCA {
		return Warn, "the leaf is not first: " + first.name + " stands before it"
	}
	c := s.Cert
	for i, next := range s.order[1:] {
		named := func(issuer *Certificate) bool { return bytes.Equal(c.issuer, issuer.subject) }
		if named(next) {
			c = next
			continue
		}
		if !c.selfIssued() && slices.ContainsFunc(s.order[i+2:], named) {
			return Warn, "the chain is out of order: " + next.name + " stands before " + c.issuerName
		}
		break
	}
	return fine, ""
}

// topOf follows the issuers from c through certs as far as they go.
func topOf(c *Certificate, certs []*Certificate) *Certificate {
	for range certs { // a longer path would be a circle
		if c.selfIssued() {
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
func issuerOf(c *Certificate, certs []*Certificate) *Certificate {
	for _, i := range certs {
		if bytes.Equal(c.issuer, i.subject) && !i.key.oversized() && c.X509().CheckSignatureFrom(i.X509()) == nil {
			return i
		}
	}
	return nil
}

// pools keeps the pool of a list that many leaves share: in one file with
// thousands of each, making it anew for every leaf is all that an audit would do.
type pools struct {
	mu   sync.Mutex
	made map[listID]*x509.CertPool
}

// maxPools bounds them: most files have a list of their own.
const maxPools = 256

// listID tells lists apart without looking at what is in them.
type listID struct {
	first **Certificate
	size  int
}

func idOf(certs []*Certificate) listID { return listID{&certs[0], len(certs)} }

func (p *pools) of(certs []*Certificate) *x509.CertPool {
	if len(certs) == 0 {
		return x509.NewCertPool()
	}
	id := idOf(certs)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made[id] == nil {
		if p.made == nil || len(p.made) >= maxPools {
			p.made = map[listID]*x509.CertPool{} // those in use live on
		}
		p.made[id] = pool(all(certs))
	}
	return p.made[id]
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool() // never the system's roots: internal peers have none there
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}
