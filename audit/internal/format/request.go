package format

import (
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/certs"
)

var oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}

const certificateRequest = "certificate request"

// readRequest reads a certificate request (PKCS #10, RFC 2986 §4). Its document says
// whether the request is signed by its own key; whether that key is weak is left to the
// table of checks.
func readRequest(data []byte) (*cert.Document, error) {
	r, err := x509.ParseCertificateRequest(data)
	if err != nil {
		return nil, fmt.Errorf("parsing the certificate request: %w", err)
	}
	// Names and keys are named by functions for certificates.
	like := &x509.Certificate{
		DNSNames: r.DNSNames, IPAddresses: r.IPAddresses, URIs: r.URIs, EmailAddresses: r.EmailAddresses,
		PublicKey: r.PublicKey, RawSubjectPublicKeyInfo: r.RawSubjectPublicKeyInfo,
	}
	names := certs.Names(like)
	d := &cert.Document{What: certificateRequest, Name: cmp.Or(r.Subject.CommonName, strings.Join(names, ", "), r.Subject.String(), "nobody")}
	d.Key, d.Signature = cert.KeyKindOf(like), r.SignatureAlgorithm
	d.Add("names", "%s", strings.Join(names, ", "))
	d.Add("key", "%s", d.Key)
	d.Add("signature", "%s", r.SignatureAlgorithm)
	if asksForAuthority(r) {
		d.Add("asks for", "the certificate of an authority")
	}
	if d.Key.Oversized() {
		d.Add("signed by", "its own key, which is too long: not judged")
	} else if err := r.CheckSignature(); err != nil {
		d.Flaws = append(d.Flaws, cert.Flaw{Check: "bad-signature", Text: "its signature is not by its own key"})
	}
	if len(names) == 0 {
		d.Flaws = append(d.Flaws, cert.Flaw{Check: "no-san", Text: "it asks for no subject alternative name: clients do not look at the common name"})
	}
	return d, nil
}

// asksForAuthority reports whether the request asks for basic constraints with cA TRUE
// (RFC 5280 §4.2.1.9).
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

// documentTypes are the labels of requests (RFC 7468 §7), with the parser of each.
var documentTypes = map[string]func([]byte) (*cert.Document, error){
	"CERTIFICATE REQUEST":     readRequest,
	"NEW CERTIFICATE REQUEST": readRequest,
}

// documentInDER reads a request, if documents are wanted, or a list. It returns neither a
// document nor an error if data is neither.
func documentInDER(data []byte, with *Context) (*cert.Document, error) {
	if with.Documents {
		if doc, err := readRequest(data); err == nil {
			return doc, nil
		}
	}
	if doc, err := readList(data); doc != nil {
		return doc, err
	}
	return nil, nil
}
