package source

import (
	"crypto"
	"crypto/x509"

	"github.com/artstore/artstore-pki/audit/cert"
)

func spki(public crypto.PublicKey) []byte {
	der, _ := x509.MarshalPKIXPublicKey(public) // nil for a kind that certificates do not have
	return der
}

// keyDocument is the row of a key alone.
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
