package audit

import (
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

var oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}

// readRequest reads a PKCS #10 request (RFC 2986).
func readRequest(data []byte) (*document, error) {
	r, err := x509.ParseCertificateRequest(data)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate request: %w", err)
	}
	// What names and keys are called is known for certificates.
	like := &x509.Certificate{
		DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, URIs: r.URIs, EmailAddresses: r.EmailAddresses,
		PublicKey: r.PublicKey, PublicKeyAlgorithm: r.PublicKeyAlgorithm,
	}
	names := pemfile.Names(like)
	d := &document{what: "certificate request", name: cmp.Or(r.Subject.CommonName, strings.Join(names, ", "), r.Subject.String(), "nobody")}
	s := &Subject{Cert: &Certificate{subject: r.RawSubject, key: kindOf(like), signature: r.SignatureAlgorithm}}
	d.add("names", "%s", strings.Join(names, ", "))
	d.add("key", "%s", s.Cert.key)
	d.add("signature", "%s", r.SignatureAlgorithm)
	if asksForAuthority(r) {
		d.add("asks for", "the certificate of an authority")
	}
	if s.Cert.key.oversized() {
		d.add("signed by", "its own key, which is too long: not judged")
	} else if err := r.CheckSignature(); err != nil {
		d.flaws = append(d.flaws, flaw{"bad-signature", Crit, "its signature is not by its own key"})
	}
	if len(names) == 0 {
		d.flaws = append(d.flaws, flaw{"no-san", Warn, "it asks for no subject alternative name: clients do not look at the common name"})
	}
	for id, judge := range map[string]func(*Subject, criteria) (Severity, string){"weak-key": weakKey, "weak-signature": weakSignature} {
		if severity, text := judge(s, criteria{}); severity != fine {
			d.flaws = append(d.flaws, flaw{id, severity, text})
		}
	}
	return d, nil
}

// asksForAuthority looks for basic constraints that say CA (RFC 5280 section 4.2.1.9).
func asksForAuthority(r *x509.CertificateRequest) bool {
	for _, e := range r.Extensions {
		if !e.Id.Equal(oidBasicConstraints) {
			continue
		}
		var constraints cryptobyte.String
		var isCA bool
		value := cryptobyte.String(e.Value)
		return value.ReadASN1(&constraints, der.SEQUENCE) && constraints.ReadASN1Boolean(&isCA) && isCA
	}
	return false
}
