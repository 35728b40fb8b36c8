package audit

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/openssl"
	"github.com/artstore/artstore-pki/internal/certs"
)

// chainCheck makes the check of one verdict. The first of these checks verifies,
// which costs more than all other checks together, and the others read its ruling.
func chainCheck(v chainResult) func(*Subject, criteria) (Severity, string) {
	return func(s *Subject, at criteria) (Severity, string) {
		r := s.ruling(at)
		if r.verdict != v {
			return severityOK, ""
		}
		s.remedy = r.remedy
		return r.severity, r.text
	}
}

func (s *Subject) ruling(at criteria) *ruling {
	if s.ruled == nil {
		r := s.verifyChain(at)
		s.ruled = &r
	}
	return s.ruled
}

const (
	remedySelfSigned = "have an authority issue it, or put it into the trust bundle of each client"
	remedyStranger   = "put its root into the trust bundle, or find out who issues with its key"
	remedyAnchor     = "put the root into the trust bundle beside it: some clients trust nothing else"
)

// verifyChain verifies the leaf as its peers do (RFC 5280 §6.1). What is not
// trusted by the roots of the bundle alone is tried with all that the bundle holds,
// because Go and GnuTLS trust any certificate in it and OpenSSL trusts roots only.
func (s *Subject) verifyChain(at criteria) ruling {
	switch {
	case !s.Leaf():
		return s.verifyAuthority(at)
	case s.Bundle == nil && s.Cert.SelfSigned():
		return ruling{verdict: chainUntrusted, severity: Crit, text: "it has signed itself, and there is no trust bundle that has it", remedy: remedySelfSigned}
	case s.Bundle == nil:
		return ruling{verdict: chainFine}
	}
	moment := momentIn(s.Cert, at.now)
	roots, rest := at.pools.anchors(s.Bundle)
	paths, err := s.verify(roots, at.pools.of(s.Chain, rest), moment)
	anchored := err == nil
	if !anchored && len(rest) > 0 {
		all := at.pools.of(s.Bundle)
		if more, second := s.verify(all, at.pools.of(s.Chain), moment); second == nil {
			paths, err = more, nil
		}
	}
	if err != nil {
		return s.explainFailure(err, moment, at.now)
	}
	r := s.checkPaths(paths)
	if r.verdict == chainFine && !anchored {
		top := paths[0][len(paths[0])-1]
		return ruling{verdict: chainIncomplete, severity: Warn, paths: paths, last: r.last, remedy: remedyAnchor,
			text: "the chain ends at " + cert.FromX509(top).Name + ", which is in the trust bundle and is no root: OpenSSL, and with it nginx and PostgreSQL, refuses it"}
	}
	return r
}

// verifyAuthority verifies the certificate of an authority that lies beside its own key,
// so that it can issue, and beside a trust bundle.
func (s *Subject) verifyAuthority(at criteria) ruling {
	if !s.parsed() || s.Bundle == nil || s.Key == nil || !s.Key.Fits {
		return ruling{verdict: chainFine}
	}
	moment := momentIn(s.Cert, at.now)
	if _, err := s.verify(at.pools.of(s.Bundle), at.pools.of(s.Chain), moment); err != nil {
		r := s.explainFailure(err, moment, at.now)
		if r.verdict != chainFine {
			r.severity, r.remedy = min(r.severity, Warn), remedyStranger
			r.text += ": peers refuse what it issues"
		}
		return r
	}
	return ruling{verdict: chainFine}
}

func (s *Subject) verify(roots, intermediates *x509.CertPool, moment time.Time) ([][]*x509.Certificate, error) {
	return s.Cert.X509().Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: moment,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // each usage is checked on the paths that were found
	})
}

// momentIn is the moment to verify at. The own dates of a leaf are the business of
// other checks, so the moment is moved into its life.
func momentIn(c *cert.Certificate, now time.Time) time.Time {
	moment := now
	if last := c.NotAfter.Add(-time.Second); moment.After(last) {
		moment = last
	}
	if moment.Before(c.NotBefore) {
		moment = c.NotBefore
	}
	return moment
}

// checkPaths applies to verified paths what crypto/x509 leaves out and other
// verifiers do not: key identifiers, and each usage down the path.
func (s *Subject) checkPaths(paths [][]*x509.Certificate) ruling {
	sound := slices.DeleteFunc(slices.Clone(paths), func(path []*x509.Certificate) bool { return misidentified(path) >= 0 })
	if len(sound) == 0 {
		path := paths[0]
		i := misidentified(path)
		return ruling{verdict: chainInvalid, severity: Crit, paths: paths, text: fmt.Sprintf(
			"%s names another key or serial number for its issuer (authority key identifier) than those of %s: OpenSSL looks for that one, and refuses it",
			cert.FromX509(path[i]).Name, cert.FromX509(path[min(i+1, len(path)-1)]).Name)}
	}
	r := ruling{verdict: chainFine, paths: sound, last: firstToEnd(sound)}
	worst, failed := severityOK, 0
	wanted, explicit := s.wanted()
	for _, use := range wanted {
		grade, by := usable(sound, use)
		var text string
		severity := Crit
		switch grade {
		case permitted:
			continue
		case permittedByAny:
			severity, text = Warn, fmt.Sprintf("%s has the usage any in place of that of TLS %s, which OpenSSL does not take", by, users[use])
		default:
			failed++
			text = fmt.Sprintf("no TLS %s can use it: %s is not for them (extended key usage)", users[use], by)
			if !explicit && failed < len(wanted) {
				severity = Warn
			}
		}
		if severity >= worst {
			worst = severity
			r.verdict, r.severity, r.text = chainInvalid, severity, text
		}
	}
	return r
}

var users = map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "servers", x509.ExtKeyUsageClientAuth: "clients"}

// wanted are the usages of TLS that the chain must permit: those for which the leaf
// is used, as far as that is seen, otherwise those that it names. Explicit means
// that each is wanted; otherwise the leaf leaves it open which one is.
func (s *Subject) wanted() (uses []x509.ExtKeyUsage, explicit bool) {
	const server, client = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	c := s.Cert
	open := len(c.ExtKeyUsage) == 0 && !c.OtherUsages || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
	switch {
	case s.Kind == KindEndpoint:
		return []x509.ExtKeyUsage{server}, true
	case open:
		return []x509.ExtKeyUsage{server, client}, false
	}
	for _, use := range []x509.ExtKeyUsage{server, client} {
		if slices.Contains(c.ExtKeyUsage, use) {
			uses = append(uses, use)
		}
	}
	return uses, true
}

// Grades of permission, the best last.
const (
	barred = iota
	permittedByAny
	permitted
)

// usable is how far the best path permits a usage, and which issuer of it does not.
func usable(paths [][]*x509.Certificate, use x509.ExtKeyUsage) (best int, by string) {
	best = -1
	for _, path := range paths {
		grade, name := permitted, ""
		for _, c := range path[1:] {
			if g := permits(c, use); g < grade {
				grade, name = g, cert.FromX509(c).Name
			}
		}
		if grade > best {
			best, by = grade, name
		}
	}
	return best, by
}

func permits(c *x509.Certificate, use x509.ExtKeyUsage) int {
	switch {
	case cert.HasEmptyUsages(c):
		return barred
	case len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0, slices.Contains(c.ExtKeyUsage, use):
		return permitted
	case slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny):
		return permittedByAny
	}
	return barred
}

// notJudged says at the row what the summary counts.
func notJudged(s *Subject, at criteria) (Severity, string) {
	if s.Bundle != nil || s.Err != nil || !s.Leaf() || s.Kind == kindRecord || s.ruling(at).verdict != chainFine {
		return severityOK, ""
	}
	return Info, "its chain was not judged: there is no trust bundle"
}

// misidentified is the index of the first certificate of a path whose authority
// key identifier (RFC 5280 §4.2.1.1) is that of another issuer, or -1.
func misidentified(path []*x509.Certificate) int {
	for i, child := range path {
		parent := path[min(i+1, len(path)-1)]
		if i == len(path)-1 && !bytes.Equal(child.RawIssuer, child.RawSubject) {
			break // no root, and what issued it is not on the path
		}
		if !openssl.Identifies(child, parent) {
			return i
		}
	}
	return -1
}

// maxOrdered bounds the certificates of one chain whose order is looked at. No peer
// takes so many: OpenSSL follows 100.
const maxOrdered = 100

// chainOrder judges the order in which certificates lie or were sent, and those among
// them that certify nothing. Peers should tolerate both (RFC 9846 §4.5.1), and
// not all do. Package rotation sends what [certs.Chain] returns and leaves out the
// rest, so the same function says here what it would leave out.
func chainOrder(s *Subject, at criteria) (Severity, string) {
	if !s.Leaf() || len(s.Order) == 0 {
		return severityOK, ""
	}
	if first := s.Order[0]; first.Fingerprint != s.Cert.Fingerprint {
		text := "the leaf is not first: " + first.Name + " stands before it"
		if s.Key != nil && s.Key.Fits && first.X509() != nil && !bytes.Equal(first.PublicKeyInfo, s.Cert.PublicKeyInfo) {
			return Crit, text + ", and servers compare the key with the first"
		}
		return Warn, text
	}
	if len(s.Order) > maxOrdered {
		return Warn, fmt.Sprintf("%d certificates stand there: of more than %d the order was not looked at", len(s.Order), maxOrdered)
	}
	if s.inOrder(at) {
		return severityOK, ""
	}
	if before, after := s.outOfOrder(); before != nil {
		return Warn, "the chain is out of order: " + before.Name + " stands before " + after.Name
	}
	if s.ruling(at).verdict != chainFine {
		return severityOK, "" // which says more than that something is there for nothing
	}
	_, _, surplus := certs.Chain(cert.X509s(s.Order))
	if len(surplus) == 0 {
		return severityOK, ""
	}
	return Warn, cert.FromX509(surplus[0]).Name + " stands there and has issued none of the others"
}

// inOrder reports without a signature check that each certificate is followed by its
// issuer, up to roots, of which peers have their own opinion. False is no proof of
// the opposite.
func (s *Subject) inOrder(at criteria) bool {
	c, paths := s.Cert, s.ruling(at).paths
	for _, next := range s.Order[1:] {
		if next.SelfIssued() {
			continue
		}
		if !bytes.Equal(c.RawIssuer, next.RawSubject) || paths != nil && !onPath(paths, next) {
			return false
		}
		c = next
	}
	return true
}

func onPath(paths [][]*x509.Certificate, c *cert.Certificate) bool {
	return slices.ContainsFunc(paths, func(path []*x509.Certificate) bool {
		return slices.ContainsFunc(path[1:], c.X509().Equal)
	})
}

// outOfOrder finds a certificate that stands before the one that should be there, as
// far as names tell.
func (s *Subject) outOfOrder() (before, after *cert.Certificate) {
	c := s.Cert
	for i, next := range s.Order[1:] {
		named := func(issuer *cert.Certificate) bool { return bytes.Equal(c.RawIssuer, issuer.RawSubject) }
		if named(next) {
			c = next
			continue
		}
		if later := slices.IndexFunc(s.Order[i+2:], named); !c.SelfIssued() && !next.SelfIssued() && later >= 0 {
			return next, s.Order[i+2+later]
		}
		break
	}
	return nil, nil
}
