package certs

import (
	"bytes"
	"crypto/x509"
	"slices"

	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Chain sorts the certificates of a file, of which the first is the leaf. In chain, which
// begins with the leaf, each certificate is signed by the next one. roots are self-signed.
// surplus are all others, which no peer needs. Peers should tolerate surplus certificates
// and another order (RFC 8446 §4.4.2), but not all do.
func Chain(certs []*x509.Certificate) (chain, roots, surplus []*x509.Certificate) {
	if len(certs) == 0 {
		return nil, nil, nil
	}
	var rest []*x509.Certificate
	for _, c := range certs[1:] {
		if SelfSigned(c) {
			roots = append(roots, c)
			continue
		}
		rest = append(rest, c)
	}
	chain = []*x509.Certificate{certs[0]}
	for more := true; more; {
		more = false
		for i, c := range rest {
			if Issued(c, chain[len(chain)-1]) {
				chain, more = append(chain, c), true
				rest = append(rest[:i:i], rest[i+1:]...)
				break
			}
		}
	}
	return chain, roots, rest
}

// SelfSigned reports whether a certificate is signed by its own key and names itself as the issuer.
func SelfSigned(c *x509.Certificate) bool { return Issued(c, c) }

// Issued reports whether parent signed child and is named as its issuer. It is false
// for a key that costs too much to compute with.
func Issued(parent, child *x509.Certificate) bool {
	return bytes.Equal(child.RawIssuer, parent.RawSubject) && pubkey.Bounded(parent.PublicKey) == nil && child.CheckSignatureFrom(parent) == nil
}

// Permits reports whether each issuer on a path, which leads from a leaf upwards,
// permits a usage: it names no usage at all, this one, or any (RFC 5280 §4.2.1.12,
// which peers apply to the whole path). The leaf is the business of the caller.
func Permits(path []*x509.Certificate, use x509.ExtKeyUsage) bool {
	return !slices.ContainsFunc(path[1:], func(c *x509.Certificate) bool {
		return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 && !slices.Contains(c.ExtKeyUsage, use) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
	})
}
