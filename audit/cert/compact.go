package cert

import (
	"bytes"
	"slices"
)

// compact has what [Certificate.Compact] keeps of a certificate in place of its DER.
type compact struct {
	keyID      []byte // authority key identifier
	issuerKey  []byte // SubjectPublicKeyInfo of the issuer; nil if that is unknown
	selfSigned bool
}

// Compact returns a copy without DER, in a quarter of the memory, for a program that keeps
// many certificates. issuer has signed c; nil if that is unknown, and then [Certificate.IssuerIn]
// of the copy finds none. The copy has no [Certificate.X509], so no signature, chain or host name
// can be verified with it any more. A certificate that crypto/x509 refuses is returned as it is.
func (c *Certificate) Compact(issuer *Certificate) *Certificate {
	if c.parsed == nil {
		return c
	}
	out := *c
	out.compact = &compact{keyID: bytes.Clone(c.parsed.AuthorityKeyId), selfSigned: c.SelfSigned()}
	out.Raw, out.parsed = nil, nil
	out.RawSubject, out.PublicKeyInfo, out.Names = bytes.Clone(c.RawSubject), bytes.Clone(c.PublicKeyInfo), slices.Clone(c.Names)
	switch {
	case out.compact.selfSigned:
		out.RawIssuer, out.compact.issuerKey = out.RawSubject, out.PublicKeyInfo
	case issuer != nil && bytes.Equal(issuer.RawSubject, c.RawIssuer): // these are shared with all that it has issued
		out.RawIssuer, out.compact.issuerKey = issuer.RawSubject, issuer.PublicKeyInfo
		if issuer.Name == c.IssuerName {
			out.IssuerName = issuer.Name
		}
	default:
		out.RawIssuer = bytes.Clone(c.RawIssuer)
	}
	return &out
}

// Accepted reports whether crypto/x509 accepts the certificate.
func (c *Certificate) Accepted() bool { return c.parsed != nil || c.compact != nil }

// AuthorityKeyID returns the authority key identifier (RFC 5280 §4.2.1.1), or nil.
func (c *Certificate) AuthorityKeyID() []byte {
	switch {
	case c.parsed != nil:
		return c.parsed.AuthorityKeyId
	case c.compact != nil:
		return c.compact.keyID
	}
	return nil
}

// issuerIn is IssuerIn for a compact certificate: the issuer is known by name and key.
func (c *compact) issuerIn(name []byte, among []*Certificate) *Certificate {
	for _, i := range among {
		if c.issuerKey != nil && i.Verifies() && bytes.Equal(i.RawSubject, name) && bytes.Equal(i.PublicKeyInfo, c.issuerKey) {
			return i
		}
	}
	return nil
}
