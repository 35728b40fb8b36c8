// Package openssl has the rules by which OpenSSL refuses certificates that crypto/x509
// accepts: fields that are not DER, empty lists of usages, extensions that only OpenSSL
// knows, and issuers that it does not find, because it follows one path and crypto/x509
// tries all paths. nginx, PostgreSQL, curl and Python verify with OpenSSL.
//
// The rules are those of OpenSSL 3 (crypto/x509/x509_vfy.c, v3_purp.c), at security
// level 2, the usual one. Nothing here verifies a signature.
package openssl

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidKeyUsage     = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage  = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNetscapeType = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 1}
	oidProxy        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 14}
	oidAddresses    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 7}
	oidNumbers      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 8}
	oidEmail        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// Flaw returns why OpenSSL refuses each chain with c in it, as a clause that begins with a
// verb. It returns "" if there is no such reason.
func Flaw(c *x509.Certificate) string {
	if !timesInDER(c.RawTBSCertificate) {
		return "has a time that is not DER (RFC 5280 section 4.1.2.5 wants seconds and Z)"
	}
	for _, e := range c.Extensions {
		switch {
		case e.Id.Equal(oidKeyUsage) && c.KeyUsage == 0:
			return "has a key usage that allows nothing"
		case e.Id.Equal(oidExtKeyUsage) && len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0:
			return "has an extended key usage that allows nothing"
		case e.Id.Equal(oidProxy):
			return "is a proxy certificate (RFC 3820)"
		}
	}
	if bytes.Equal(c.RawIssuer, c.RawSubject) && !Identifies(c, c) {
		return "names itself as its issuer, and another key than its own in the authority key identifier"
	}
	return ""
}

// timesInDER reports whether both times of a TBSCertificate end in seconds and Z.
func timesInDER(tbs []byte) bool {
	var fields, validity cryptobyte.String
	input := cryptobyte.String(tbs)
	ok := input.ReadASN1(&fields, der.SEQUENCE) &&
		fields.SkipOptionalASN1(der.Tag(0).Constructed().ContextSpecific()) && // version
		fields.SkipASN1(der.INTEGER) && // serial number
		fields.SkipASN1(der.SEQUENCE) && // algorithm
		fields.SkipASN1(der.SEQUENCE) && // issuer
		fields.ReadASN1(&validity, der.SEQUENCE)
	for ok && !validity.Empty() {
		var text cryptobyte.String
		var tag der.Tag
		form := "YYMMDDhhmmssZ"
		ok = validity.ReadAnyASN1(&text, &tag) && (tag == der.UTCTime || tag == der.GeneralizedTime)
		if tag == der.GeneralizedTime {
			form = "YYYYMMDDhhmmssZ"
		}
		ok = ok && len(text) == len(form) && text[len(text)-1] == 'Z'
	}
	return ok
}

// Bars reports whether the Netscape certificate type of a leaf excludes a usage. Old
// authorities issue certificates with that extension; RFC 5280 does not define it.
func Bars(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidNetscapeType) {
			bit := map[x509.ExtKeyUsage]int{x509.ExtKeyUsageClientAuth: 0, x509.ExtKeyUsageServerAuth: 1}[use]
			var kinds asn1.BitString
			_, err := asn1.Unmarshal(e.Value, &kinds)
			return err == nil && kinds.At(bit) == 0
		}
	}
	return false
}

// keyID is an AuthorityKeyIdentifier (RFC 5280 §4.2.1.1).
type keyID struct {
	Key    []byte        `asn1:"optional,tag:0"`
	Issuer asn1.RawValue `asn1:"optional,tag:1"`
	Serial *big.Int      `asn1:"optional,tag:2"`
}

// Identifies reports whether the authority key identifier of c (RFC 5280 §4.2.1.1), as
// far as it has one, is that of issuer.
func Identifies(c, issuer *x509.Certificate) bool {
	if len(c.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId) {
		return false
	}
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidAuthorityKey) || len(e.Value) <= len(c.AuthorityKeyId)+4 {
			continue // two headers and the identifier of the key leave no room for a serial number
		}
		var id keyID
		if _, err := asn1.Unmarshal(e.Value, &id); err == nil && id.Serial != nil && id.Serial.Cmp(issuer.SerialNumber) != 0 {
			return false
		}
	}
	return true
}

// Index has certificates by the name of their subject. Those of one name keep their order.
type Index map[string][]*x509.Certificate

// NewIndex makes an index of a list.
func NewIndex(list []*x509.Certificate) Index {
	out := Index{}
	for _, c := range list {
		out[string(c.RawSubject)] = append(out[string(c.RawSubject)], c)
	}
	return out
}

// Given is the input of a verification: the certificates that were sent with a leaf, those
// that are trusted, and the time.
type Given struct {
	Sent, Trusted Index
	Now           time.Time
}

// End says how a path ends.
type End int

// Ends of a path.
const (
	Rooted    End = iota // at a trusted root
	Ambiguous            // OpenSSL chooses one of several roots by an internal order
	Astray               // before it reaches a trusted root
)

// maxPath is the longest path that is followed, the default of OpenSSL.
const maxPath = 100

// Path is the one path from leaf upwards that OpenSSL follows. It chooses by names,
// key identifiers and dates, before it verifies a signature; here none is verified.
func Path(leaf *x509.Certificate, g Given) (path []*x509.Certificate, end End) {
	path = []*x509.Certificate{leaf}
	trusted := false
	for len(path) <= maxPath {
		top := path[len(path)-1]
		if bytes.Equal(top.RawIssuer, top.RawSubject) {
			if !slices.ContainsFunc(g.Trusted[string(top.RawSubject)], top.Equal) {
				return path, Astray
			}
			return path, end
		}
		next, several := g.issuer(top, g.Trusted, nil)
		if several {
			end = Ambiguous
		}
		if next == nil && !trusted {
			next, _ = g.issuer(top, g.Sent, path)
		} else {
			trusted = true
		}
		if next == nil {
			break
		}
		path = append(path, next)
	}
	return path, Astray
}

// issuer returns the first valid certificate that may have issued c and is not on the path
// yet, or else the one that ends last. several reports whether another key ranks equal.
func (g Given) issuer(c *x509.Certificate, among Index, used []*x509.Certificate) (best *x509.Certificate, several bool) {
	valid := func(i *x509.Certificate) bool { return !g.Now.Before(i.NotBefore) && !g.Now.After(i.NotAfter) }
	for _, i := range among[string(c.RawIssuer)] {
		switch {
		case i.KeyUsage != 0 && i.KeyUsage&x509.KeyUsageCertSign == 0, !Identifies(c, i), slices.Contains(used, i):
		case best == nil, !valid(best) && (valid(i) || i.NotAfter.After(best.NotAfter)):
			best, several = i, false
		case valid(best) == valid(i) && !bytes.Equal(best.RawSubjectPublicKeyInfo, i.RawSubjectPublicKeyInfo):
			several = true
		}
	}
	return best, several
}

// Limit returns an issuer of the path with a constraint that crypto/x509 does not apply, and
// a clause about the constraint; or nil. broken is true if the leaf violates it, and false
// if that is unknown.
func Limit(path []*x509.Certificate) (by *x509.Certificate, limit string, broken bool) {
	leaf := path[0]
	for _, c := range path[1:] {
		if name := leaf.Subject.CommonName; len(leaf.DNSNames) == 0 && isHostName(name) && !permits(c, name) {
			return c, "the common name, which counts as a DNS name where there is none, is outside of the name constraints", true
		}
		emails := len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses) > 0
		if emails && slices.ContainsFunc(leaf.Subject.Names, func(a pkix.AttributeTypeAndValue) bool { return a.Type.Equal(oidEmail) }) {
			return c, "the mail address in the subject was not compared with the name constraints", false
		}
		for _, e := range c.Extensions {
			if e.Id.Equal(oidConstraints) && !e.Critical && namesOthers(e.Value) {
				return c, "the names were not compared with all name constraints", false
			}
		}
	}
	for i, c := range path {
		for _, e := range c.Extensions {
			if e.Id.Equal(oidAddresses) || e.Id.Equal(oidNumbers) {
				return path[min(i+1, len(path)-1)], "the blocks of addresses (RFC 3779) were not compared with those", false
			}
		}
	}
	return nil, "", false
}

// isHostName reports whether a common name looks like a host name with a domain.
func isHostName(name string) bool {
	inside := strings.Trim(name, ".")
	return strings.Contains(inside, ".") && inside == name && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// permits applies the constraints of c for DNS names to one name.
func permits(c *x509.Certificate, name string) bool {
	name = strings.ToLower(name)
	under := func(constraint string) bool {
		constraint = strings.ToLower(strings.TrimPrefix(constraint, "."))
		return constraint == "" || name == constraint || strings.HasSuffix(name, "."+constraint)
	}
	return !slices.ContainsFunc(c.ExcludedDNSDomains, under) &&
		(len(c.PermittedDNSDomains) == 0 || slices.ContainsFunc(c.PermittedDNSDomains, under))
}

// namesOthers reports whether name constraints (RFC 5280 §4.2.1.10) limit other
// kinds of names than crypto/x509 compares: mail, DNS, URI and addresses.
func namesOthers(extension []byte) bool {
	var lists, subtrees, subtree, name cryptobyte.String
	var tag der.Tag
	input := cryptobyte.String(extension)
	if !input.ReadASN1(&lists, der.SEQUENCE) {
		return true
	}
	for !lists.Empty() {
		if !lists.ReadAnyASN1(&subtrees, &tag) {
			return true
		}
		for !subtrees.Empty() {
			if !subtrees.ReadASN1(&subtree, der.SEQUENCE) || !subtree.ReadAnyASN1(&name, &tag) || !compared[tag] {
				return true
			}
		}
	}
	return false
}

var compared = map[der.Tag]bool{
	der.Tag(1).ContextSpecific(): true, der.Tag(2).ContextSpecific(): true, der.Tag(6).ContextSpecific(): true, der.Tag(7).ContextSpecific(): true,
}
