package audit

import (
	"bytes"
	"crypto/x509"
	"slices"
	"sync"
	"time"
)

// verified remembers paths from an issuer to a root that crypto/x509 has verified
// below some leaf, so that for the next leaf of the same issuer one signature is
// left to verify instead of all. It only ever says that a chain is fine: with any
// doubt, crypto/x509 is asked again.
//
// What a path depends on the leaf for, besides that signature, are the dates of
// the issuers, which are compared; the names, so paths with constraints are not
// remembered; and extensions of the leaf that are critical and unknown, which the
// leaves that are read without crypto/x509 do not have.
type verified struct {
	mu    sync.RWMutex
	paths map[pathID]path
}

// pathID is an issuer as one bundle and one chain know it. Certificates of
// authorities are one each in an audit, so a pointer tells them apart.
type pathID struct {
	issuer *Certificate
	root   listID
}

type path struct {
	issuer   *x509.Certificate
	between  []*x509.Certificate // issuer and root; what lies with a leaf must have them too
	from, to time.Time           // when all of it is valid
}

// maxPaths bounds them; who has more issuers than that verifies more.
const maxPaths = 4 << 10

// through reports whether the chain of s is fine because of a path that is known.
func (v *verified) through(s *Subject, now time.Time) bool {
	if s.Cert.parsed != nil || len(s.Bundle) == 0 {
		return false
	}
	for _, list := range [][]*Certificate{s.Chain, s.Bundle} {
		for _, issuer := range list {
			if !bytes.Equal(issuer.subject, s.Cert.issuer) {
				continue
			}
			v.mu.RLock()
			p, known := v.paths[pathID{issuer, idOf(s.Bundle)}]
			v.mu.RUnlock()
			if known && !now.Before(p.from) && !now.After(p.to) && p.within(s) && s.Cert.signedBy(p.issuer) {
				return true
			}
		}
	}
	return false
}

// within reports whether a client that meets s has the whole path.
func (p *path) within(s *Subject) bool {
	for _, c := range p.between {
		same := func(o *Certificate) bool { return o.parsed == c }
		if !slices.ContainsFunc(s.Chain, same) && !slices.ContainsFunc(s.Bundle, same) {
			return false
		}
	}
	return true
}

// learn remembers the paths below a leaf that was verified.
func (v *verified) learn(s *Subject, chains [][]*x509.Certificate) {
	for _, chain := range chains {
		if len(chain) < 2 {
			continue
		}
		p := path{chain[1], chain[2:max(2, len(chain)-1)], chain[1].NotBefore, chain[1].NotAfter}
		for _, c := range chain[1:] {
			if constrained(c) {
				return
			}
			if c.NotBefore.After(p.from) {
				p.from = c.NotBefore
			}
			if c.NotAfter.Before(p.to) {
				p.to = c.NotAfter
			}
		}
		for _, list := range [][]*Certificate{s.Chain, s.Bundle} {
			for _, issuer := range list {
				if issuer.parsed == p.issuer {
					v.remember(pathID{issuer, idOf(s.Bundle)}, p)
				}
			}
		}
	}
}

func (v *verified) remember(id pathID, p path) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.paths == nil || len(v.paths) >= maxPaths {
		v.paths = map[pathID]path{}
	}
	v.paths[id] = p
}

// constrained reports whether a certificate limits the names below it.
func constrained(c *x509.Certificate) bool {
	return len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges)+
		len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
}

// signedBy verifies the signature of a certificate that was read by [quick].
func (c *Certificate) signedBy(issuer *x509.Certificate) bool {
	return c.tbs != nil && issuer.CheckSignature(c.signature, c.tbs, c.sealed) == nil
}
