package audit

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
)

// maxRevocationList bounds a list that is parsed whole: some 50 000 entries.
const maxRevocationList = 2 << 20

var errLargeList = fmt.Errorf("the revocation list is larger than %d MiB", maxRevocationList>>20)

// readRevocationList reads a CRL (RFC 5280 section 5). Who signed it is looked for
// among the certificates of its file and the trust bundle.
func readRevocationList(data []byte) (*document, error) {
	if len(data) > maxRevocationList {
		return nil, errLargeList
	}
	l, err := x509.ParseRevocationList(bytes.Clone(data))
	if err != nil {
		return nil, fmt.Errorf("parsing the revocation list: %w", err)
	}
	d := &document{
		what: "revocation list", name: "of " + cmp.Or(l.Issuer.CommonName, l.Issuer.String()),
		from: l.ThisUpdate, until: l.NextUpdate,
	}
	d.add("revoked", "%d certificates", len(l.RevokedCertificateEntries))
	if l.Number != nil {
		d.add("number", "%s", l.Number)
	}
	d.add("signature", "%s", l.SignatureAlgorithm)
	list := *l
	list.RevokedCertificateEntries, list.RevokedCertificates = nil, nil //nolint:staticcheck // SA1019: it is filled all the same
	d.verify = func(among []*Certificate) (detail, *flaw) { return signedBy(&list, among) }
	return d, nil
}

func signedBy(l *x509.RevocationList, among []*Certificate) (detail, *flaw) {
	const label = "issuer"
	named := false
	for _, c := range among {
		if !bytes.Equal(c.subject, l.RawIssuer) || c.X509() == nil {
			continue
		}
		named = true
		if c.key.oversized() {
			return detail{label, c.name}, &flaw{"weak-key", Crit, "its signature was not judged: the key of its issuer is too long (" + c.key.String() + ")"}
		}
		if c.X509().CheckSignature(l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature) != nil {
			continue // authorities change keys and keep names
		}
		if c.keyUsage != 0 && c.keyUsage&x509.KeyUsageCRLSign == 0 {
			return detail{label, c.name}, &flaw{"wrong-usage", Crit, "its issuer's certificate may not sign revocation lists (RFC 5280 section 6.3.3)"}
		}
		return detail{label, c.name + ", whose signature is genuine"}, nil
	}
	if named {
		return detail{label, "a certificate with its name is here"},
			&flaw{"bad-signature", Crit, "its signature is not by the certificate with its issuer's name"}
	}
	return detail{label, "not here, so that the signature was not judged"}, nil
}
