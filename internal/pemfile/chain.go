package pemfile

import (
	"bytes"
	"crypto/x509"
)

// Chain sorts the certificates of a file, of which the first is the leaf: chain
// leads from it upwards, each certificate signed by the next one; roots signed
// themselves; surplus leads nowhere, and no peer needs it. Peers should tolerate
// surplus certificates and another order (RFC 8446 §4.4.2), but not all do.
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

// Issued reports whether parent signed child and is named as its issuer.
func Issued(parent, child *x509.Certificate) bool {
	return bytes.Equal(child.RawIssuer, parent.RawSubject) && child.CheckSignatureFrom(parent) == nil
}
