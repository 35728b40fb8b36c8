package source

import (
	"crypto"
	"crypto/x509"

	"github.com/artstore/artstore-pki/audit/cert"
)

// spki returns the SubjectPublicKeyInfo of a key (RFC 5280 §4.1.2.7) in DER. It is nil for a
// kind of key that certificates do not have.
func spki(public crypto.PublicKey) []byte {
	der, _ := x509.MarshalPKIXPublicKey(public)
	return der
}

// keyDocument returns the document for a key without a certificate in its file.
func keyDocument(k *cert.KeyFile, public crypto.PublicKey) *cert.Document {
	d := &cert.Document{What: cert.PrivateKey, Name: cert.PrivateKey}
	switch {
	case public != nil:
		d.Name = cert.KeyKindOf(&x509.Certificate{PublicKey: public}).String() + " " + cert.PrivateKey
	case k.Locked:
		d.Name = "encrypted " + cert.PrivateKey
	}
	d.Add("mode", "%04o", k.Mode.Perm())
	return d
}
