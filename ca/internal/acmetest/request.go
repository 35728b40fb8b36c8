package acmetest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"testing"

	"github.com/artstore/artstore-pki/internal/testpki"
)

// Request is a PKCS #10 request in DER for names, which are DNS names or IP addresses.
func Request(t testing.TB, key crypto.Signer, cn string, names ...string) []byte {
	t.Helper()
	req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			req.IPAddresses = append(req.IPAddresses, ip)
			continue
		}
		req.DNSNames = append(req.DNSNames, n)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// OtherNamed is a request for one DNS name and, beside it, a user principal name,
// which crypto/x509 does not parse.
func OtherNamed(t testing.TB, name string) []byte {
	t.Helper()
	upn := []byte("\xa0\x15\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x14\x02\x03\xa0\x07\x0c\x05abc\x2f\x64")
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}, {FullBytes: upn}})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}},
	}, testpki.Key(t))
	if err != nil {
		t.Fatal(err)
	}
	return der
}
