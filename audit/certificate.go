package audit

import (
	"bytes"
	"cmp"
	"crypto/dsa" //nolint:staticcheck // SA1019: to name what nobody should use
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Certificate is what checks and reports need of a certificate, read once. It
// is what tens of thousands of are in flight in one audit, so the rest is
// parsed only for whoever asks.
type Certificate struct {
	raw                     []byte // DER; what follows are parts of it
	subject, issuer, public []byte
	tbs, sealed             []byte // what was signed, and the signature; nil where crypto/x509 has them

	name, issuerName    string // as people call them
	names               []string
	serial              string // as this project shows it everywhere
	notBefore, notAfter time.Time
	isCA                bool
	keyUsage            x509.KeyUsage
	usages              []x509.ExtKeyUsage
	otherUsages         bool // it names a usage that crypto/x509 has no name for
	hasNames            bool // the extension for names is there, whatever is in it
	signature           x509.SignatureAlgorithm
	key                 keyKind
	fingerprint         [sha256.Size]byte

	partial bool // crypto/x509 refuses it
	parsed  *x509.Certificate
}

// keyKind is what there is to know of a public key without using it.
type keyKind struct {
	algorithm string // RSA, ECDSA P-256, DSA; what crypto/x509 calls the rest
	bits      int    // 0 for those that come in one size
}

func (k keyKind) String() string {
	if k.algorithm == "RSA" {
		return fmt.Sprintf("RSA %d", k.bits)
	}
	return k.algorithm
}

// oversized reports whether a signature check with this key costs more than a file
// may cost. Such a certificate is shown and judged, and never computed with: neither
// its own signature on a request nor those of the certificates below it.
func (k keyKind) oversized() bool { return k.algorithm == "RSA" && k.bits > pubkey.MaxRSA }

// ParseCertificate reads one certificate in DER. It gives a certificate, or why
// there is none, or both for one that crypto/x509 refuses and whose dates can be
// read: of that, nothing else is known.
func ParseCertificate(der []byte) (*Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err == nil {
		return fromX509(c), nil
	}
	return remains(der), fmt.Errorf("parsing the certificate: %w", err)
}

// X509 is the certificate as crypto/x509 has it, or nil for one that it refuses.
// A certificate belongs to one goroutine at a time, so there is no lock.
func (c *Certificate) X509() *x509.Certificate {
	if c.parsed == nil && !c.partial {
		c.parsed, _ = x509.ParseCertificate(c.raw) // whoever made c knows that it parses
	}
	return c.parsed
}

func (c *Certificate) selfIssued() bool { return bytes.Equal(c.issuer, c.subject) }

func (c *Certificate) hexFingerprint() string { return hex.EncodeToString(c.fingerprint[:]) }

var oidNames = asn1.ObjectIdentifier{2, 5, 29, 17}

func fromX509(x *x509.Certificate) *Certificate {
	c := &Certificate{
		raw: x.Raw, subject: x.RawSubject, issuer: x.RawIssuer, public: x.RawSubjectPublicKeyInfo,
		names: pemfile.Names(x), serial: pemfile.Serial(x), notBefore: x.NotBefore, notAfter: x.NotAfter,
		isCA: x.IsCA, keyUsage: x.KeyUsage, usages: x.ExtKeyUsage, otherUsages: len(x.UnknownExtKeyUsage) > 0,
		signature: x.SignatureAlgorithm, key: kindOf(x), fingerprint: sha256.Sum256(x.Raw), parsed: x,
	}
	for _, e := range x.Extensions {
		c.hasNames = c.hasNames || e.Id.Equal(oidNames)
	}
	c.name = x.Subject.CommonName
	if c.name == "" && len(c.names) > 0 {
		c.name = c.names[0]
	}
	c.name = cmp.Or(c.name, x.Subject.String(), c.serial)
	c.issuerName = c.name
	if !c.selfIssued() {
		c.issuerName = cmp.Or(x.Issuer.CommonName, x.Issuer.String())
	}
	return c
}

func kindOf(x *x509.Certificate) keyKind {
	switch k := x.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return keyKind{"ECDSA " + k.Params().Name, k.Params().BitSize}
	case *rsa.PublicKey:
		return keyKind{"RSA", k.N.BitLen()}
	case ed25519.PublicKey:
		return keyKind{"Ed25519", 0}
	case *dsa.PublicKey:
		return keyKind{algorithm: "DSA"}
	}
	return keyKind{algorithm: x.PublicKeyAlgorithm.String()}
}
