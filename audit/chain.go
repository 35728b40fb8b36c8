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

// chainCheck returns the check that reports one verdict. The chain is verified once, by
// the first of these checks, because that costs more than all other checks together.
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

// ruling returns the verdict on the chain. It verifies the chain at the first call.
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

// verifyChain verifies the leaf as its peers do (RFC 5280 §6.1). OpenSSL trusts the roots of
// a bundle, and Go and GnuTLS trust each certificate in it. Therefore a leaf that does not
// verify with the roots is tried with the whole bundle, and then it is a warning.
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

// verifyAuthority verifies the certificate of an authority if its key is there too, so that
// it can issue, and a trust bundle. Other certificates of authorities are not verified.
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

// verify returns the paths from the certificate to the roots at a moment, for any usage.
func (s *Subject) verify(roots, intermediates *x509.CertPool, moment time.Time) ([][]*x509.Certificate, error) {
	return s.Cert.X509().Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: moment,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // each usage is checked on the paths that were found
	})
}

// momentIn returns the moment at which a chain is verified: now, moved into the life of the
// leaf, because other checks report the dates of the leaf itself.
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

// checkPaths applies two rules that crypto/x509 does not apply and other verifiers do: the
// key identifiers of issuers fit (RFC 5280 §4.2.1.1), and each issuer permits the usage
// of the leaf (RFC 5280 §4.2.1.12).
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

// users are the words for the sides of TLS in texts.
var users = map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "servers", x509.ExtKeyUsageClientAuth: "clients"}

// wanted returns the usages of TLS that the chain must permit: that of a server, if a server
// has sent the leaf, and those that the leaf names otherwise. explicit is false if the
// leaf names none, so that it is unknown which of the usages is needed.
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

// How far a certificate permits a usage; the best is last.
const (
	barred = iota
	permittedByAny
	permitted
)

// usable returns how far the best path permits a usage, and the name of the issuer on it
// that permits it least.
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

// permits returns how far one certificate permits a usage. Without the extension it permits
// all (RFC 5280 §4.2.1.12).
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

// notJudged marks the rows that the summary counts as chains that were not judged.
func notJudged(s *Subject, at criteria) (Severity, string) {
	if s.Bundle != nil || s.Err != nil || !s.Leaf() || s.Kind == kindRecord || s.ruling(at).verdict != chainFine {
		return severityOK, ""
	}
	return Info, "its chain was not judged: there is no trust bundle"
}

// misidentified returns the index of the first certificate of a path whose authority key
// identifier (RFC 5280 §4.2.1.1) is not that of its issuer, or -1.
func misidentified(path []*x509.Certificate) int {
	for i, child := range path {
		parent := path[min(i+1, len(path)-1)]
		if i == len(path)-1 && !bytes.Equal(child.RawIssuer, child.RawSubject) {
			break // the path ends below a root, so the issuer of its end is unknown
		}
		if !openssl.Identifies(child, parent) {
			return i
		}
	}
	return -1
}

// maxOrdered is the longest chain whose order is judged. OpenSSL follows as many
// certificates at most.
const maxOrdered = 100

// chainOrder finds chains in a wrong order, and certificates that are no part of the chain.
// Peers should tolerate both (RFC 9846 §4.5.1), and not all do. Package rotation sends
// what [certs.Chain] returns, so the same function says here what is superfluous.
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
		return severityOK, "" // the check of that verdict says more
	}
	_, _, surplus := certs.Chain(cert.X509s(s.Order))
	if len(surplus) == 0 {
		return severityOK, ""
	}
	return Warn, cert.FromX509(surplus[0]).Name + " stands there and has issued none of the others"
}

// inOrder reports whether each certificate is followed by its issuer, as far as that is
// known without a signature check. It skips self-issued certificates, because peers use
// their own roots. False does not prove that the order is wrong.
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

// onPath reports whether c is an issuer on one of the paths.
func onPath(paths [][]*x509.Certificate, c *cert.Certificate) bool {
	return slices.ContainsFunc(paths, func(path []*x509.Certificate) bool {
		return slices.ContainsFunc(path[1:], c.X509().Equal)
	})
}

// outOfOrder compares the names of subjects and issuers. It returns the first certificate
// that stands where the issuer of the one before should be, and that issuer, which stands
// behind it; or nil if the names do not tell.
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

// chainResult is the result of verifying a chain. Zero means that it was not verified.
type chainResult int

const (
	chainFine       chainResult = iota + 1
	chainIncomplete             // an issuer is neither with the leaf nor in the bundle
	chainUntrusted              // it ends at a root that the bundle does not have
	chainInvalid                // a path exists and breaks a rule
)

// ruling is the verdict on the chain of one subject, with its reasons.
type ruling struct {
	verdict  chainResult
	severity Severity
	text     string
	remedy   string                // "" means the remedy of the check
	paths    [][]*x509.Certificate // verified, from the leaf to a root of the bundle
	last     *x509.Certificate     // see firstToEnd; nil without a path
}

// firstToEnd returns the issuer that ends first on the path that lasts longest. From its end
// on no path verifies. It returns nil if no path has an issuer.
func firstToEnd(paths [][]*x509.Certificate) (last *x509.Certificate) {
	for _, path := range paths {
		if len(path) == 1 {
			continue // it is in the bundle itself
		}
		first := slices.MinFunc(path[1:], func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if last == nil || first.NotAfter.After(last.NotAfter) {
			last = first
		}
	}
	return last
}
