package cert

import (
	"bytes"
	"cmp"
	"crypto/dsa" //nolint:staticcheck // SA1019: to name what nobody should use
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/algorithms"
	"github.com/artstore/artstore-pki/audit/internal/ber"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Certificate has the fields of a certificate that checks and reports need. They are read
// once, also for a certificate that crypto/x509 refuses.
type Certificate struct {
	Raw                                  []byte // DER; the next three are parts of it
	RawSubject, RawIssuer, PublicKeyInfo []byte

	Name, IssuerName    string // the common name, or what stands for it
	Names               []string
	Serial              string // "0x" and hex
	NotBefore, NotAfter time.Time
	IsCA                bool
	KeyUsage            x509.KeyUsage
	ExtKeyUsage         []x509.ExtKeyUsage
	OtherUsages         bool // there is a usage that crypto/x509 has no name for
	HasAltNames         bool // the extension subjectAltName is there, even without a name
	NoUsage             bool // a list of usages is there and empty, which permits none
	HasHostNames        bool // a host name or an address is among Names
	SignatureAlgorithm  x509.SignatureAlgorithm
	SignatureName       string // the name of the algorithm, also if Go does not know it
	Key                 KeyKind
	Fingerprint         [sha256.Size]byte

	parsed  *x509.Certificate // nil for one that crypto/x509 refuses, and for a compact one
	compact *compact          // nil unless [Certificate.Compact] has made it
}

// KeyKind is the kind of a public key.
type KeyKind struct {
	Algorithm string // RSA, ECDSA P-256, DSA, …; or the name of the object identifier
	Bits      int    // 0 for kinds of one size
}

// String returns the algorithm, and the size of an RSA key.
func (k KeyKind) String() string {
	if k.Algorithm == "RSA" && k.Bits > 0 { // 0 if only its name could be read
		return fmt.Sprintf("RSA %d", k.Bits)
	}
	return k.Algorithm
}

// Oversized reports whether a signature check with this key would take too long. No
// signature is checked with such a key.
func (k KeyKind) Oversized() bool { return k.Algorithm == "RSA" && k.Bits > pubkey.MaxRSA }

// Parse reads one certificate in DER. It returns a certificate, an error, or both for one
// that crypto/x509 refuses and whose dates can be read. If a date cannot be read, the
// error has what else was read.
func Parse(der []byte) (*Certificate, error) {
	return parseCertificate(der, sha256.Sum256(der))
}

func parseCertificate(der []byte, fingerprint [sha256.Size]byte) (*Certificate, error) {
	x, err := x509.ParseCertificate(der)
	if err == nil {
		return fromParsed(x, fingerprint), nil
	}
	err = fmt.Errorf("parsing the certificate: %w", err)
	c := ParsePartial(der)
	if c == nil && len(der) > 1 && der[1] == 0x80 {
		if whole, bad := ber.ToDER(der); bad == nil {
			c, err = ParsePartial(whole), errors.New("the certificate is in BER, which Go and browsers refuse")
		}
	}
	if c == nil {
		return nil, err
	}
	key, signedBy := algorithms.Certificate(c.Raw)
	c.Key.Algorithm, c.SignatureName = cmp.Or(c.Key.Algorithm, key), signedBy
	if !c.dated() {
		return nil, fmt.Errorf("%w; %s", err, c.known())
	}
	return c, err
}

// X509 returns the certificate of crypto/x509, or nil if that refuses it or c is compact.
func (c *Certificate) X509() *x509.Certificate { return c.parsed }

// SelfIssued reports whether issuer and subject have the same name (RFC 5280 §3.2).
func (c *Certificate) SelfIssued() bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// Verifies reports whether signatures may be checked with its key.
func (c *Certificate) Verifies() bool { return c.parsed != nil && !c.Key.Oversized() }

// MayBeTrusted reports whether it can stand in a trust bundle: crypto/x509 takes it.
func (c *Certificate) MayBeTrusted() bool { return c.parsed != nil }

// tlsKeyUsages are the key usages of which a TLS server needs one, if its certificate has
// the extension (RFC 5280 §4.2.1.3).
const tlsKeyUsages = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement

// ForSigningOnly reports whether the key usage permits to sign certificates and bars TLS.
func (c *Certificate) ForSigningOnly() bool {
	return c.KeyUsage&x509.KeyUsageCertSign != 0 && c.KeyUsage&tlsKeyUsages == 0
}

// MayIssue reports whether the key usage permits to sign certificates.
func (c *Certificate) MayIssue() bool {
	return c.IsCA && (c.KeyUsage == 0 || c.KeyUsage&x509.KeyUsageCertSign != 0)
}

// ForTLS reports whether a usage of TLS is named.
func (c *Certificate) ForTLS() bool {
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

// SelfSigned reports whether its own key has signed it. If crypto/x509 does not verify the
// algorithm, the names decide.
func (c *Certificate) SelfSigned() bool {
	if c.compact != nil {
		return c.compact.selfSigned
	}
	if !c.SelfIssued() || !c.Verifies() {
		return false
	}
	err := c.parsed.CheckSignature(c.SignatureAlgorithm, c.parsed.RawTBSCertificate, c.parsed.Signature)
	_, old := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || old || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}

// HexFingerprint returns the SHA-256 of the DER in lower-case hex.
func (c *Certificate) HexFingerprint() string { return hex.EncodeToString(c.Fingerprint[:]) }

var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// saysNothing reports whether an extension is an empty list of usages. crypto/x509 does not
// distinguish that from an absent extension.
func saysNothing(x *x509.Certificate, id asn1.ObjectIdentifier) bool {
	return x.KeyUsage == 0 && id.Equal(oidKeyUsage) ||
		len(x.ExtKeyUsage)+len(x.UnknownExtKeyUsage) == 0 && id.Equal(oidExtKeyUsage)
}

// HasEmptyUsages reports whether a list of usages is there and empty.
func HasEmptyUsages(x *x509.Certificate) bool {
	return slices.ContainsFunc(x.Extensions, func(e pkix.Extension) bool { return saysNothing(x, e.Id) })
}

var oidNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// FromX509 is [Parse] for a certificate that crypto/x509 has parsed.
func FromX509(x *x509.Certificate) *Certificate { return fromParsed(x, sha256.Sum256(x.Raw)) }

func fromParsed(x *x509.Certificate, fingerprint [sha256.Size]byte) *Certificate {
	c := &Certificate{
		Raw: x.Raw, RawSubject: x.RawSubject, RawIssuer: x.RawIssuer, PublicKeyInfo: x.RawSubjectPublicKeyInfo,
		Names: certs.Names(x), Serial: certs.Serial(x), NotBefore: x.NotBefore, NotAfter: x.NotAfter,
		IsCA: x.IsCA, KeyUsage: x.KeyUsage, ExtKeyUsage: x.ExtKeyUsage, OtherUsages: len(x.UnknownExtKeyUsage) > 0,
		HasHostNames: len(x.DNSNames) > 0 || len(x.IPAddresses) > 0, SignatureAlgorithm: x.SignatureAlgorithm, Key: KeyKindOf(x), Fingerprint: fingerprint, parsed: x,
	}
	if c.SignatureName = c.SignatureAlgorithm.String(); c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		_, c.SignatureName = algorithms.Certificate(x.Raw)
	}
	for _, e := range x.Extensions {
		c.HasAltNames = c.HasAltNames || e.Id.Equal(oidNames)
		c.NoUsage = c.NoUsage || saysNothing(x, e.Id)
	}
	c.Name = x.Subject.CommonName
	if c.Name == "" && len(c.Names) > 0 {
		c.Name = c.Names[0]
	}
	if c.Name == "" { // formatting a whole name takes longer than parsing the certificate
		c.Name = cmp.Or(x.Subject.String(), c.Serial)
	}
	switch c.IssuerName = x.Issuer.CommonName; {
	case c.SelfIssued():
		c.IssuerName = c.Name
	case c.IssuerName == "":
		c.IssuerName = x.Issuer.String()
	}
	return c
}

// KeyKindOf returns the kind of the public key of a certificate.
func KeyKindOf(x *x509.Certificate) KeyKind {
	switch k := x.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return KeyKind{"ECDSA " + k.Params().Name, k.Params().BitSize}
	case *rsa.PublicKey:
		return KeyKind{"RSA", k.N.BitLen()}
	case ed25519.PublicKey:
		return KeyKind{"Ed25519", 0}
	case *dsa.PublicKey:
		return KeyKind{Algorithm: "DSA"}
	}
	return KeyKind{Algorithm: algorithms.Key(x.RawSubjectPublicKeyInfo)}
}

// Life returns the time from issue to end, without the back-dating.
func (c *Certificate) Life() humantime.Seconds {
	return humantime.Between(lifetime.IssuedAt(c.NotBefore, c.NotAfter), c.NotAfter)
}

// ID is the beginning of a fingerprint. It identifies a certificate in maps.
type ID [16]byte

// ID returns the beginning of the fingerprint.
func (c *Certificate) ID() ID { return ID(c.Fingerprint[:]) }

// Inverted reports whether it ends before it begins.
func (c *Certificate) Inverted() bool { return c.NotAfter.Before(c.NotBefore) }

// IssuerIn returns the certificate whose key signed c, or nil. It tries maxIssuers
// certificates with the name of the issuer at most.
func (c *Certificate) IssuerIn(certs []*Certificate) *Certificate {
	if c.compact != nil {
		return c.compact.issuerIn(c.RawIssuer, certs)
	}
	tries := 0
	for _, i := range certs {
		if !bytes.Equal(c.RawIssuer, i.RawSubject) || !i.Verifies() || c.parsed == nil {
			continue
		}
		if tries++; tries > maxIssuers {
			break
		}
		if c.X509().CheckSignatureFrom(i.X509()) == nil {
			return i
		}
	}
	return nil
}

// maxIssuers bounds the signature checks that look for one issuer; crypto/x509 has the
// same bound for a whole chain.
const maxIssuers = 100

// In reports whether a list has the same certificate.
func (c *Certificate) In(list []*Certificate) bool {
	return slices.ContainsFunc(list, func(o *Certificate) bool { return o.Fingerprint == c.Fingerprint })
}

// BarsTLS reports whether it has key usages, and none of tlsKeyUsages.
func (c *Certificate) BarsTLS() bool { return c.KeyUsage != 0 && c.KeyUsage&tlsKeyUsages == 0 }

// X509s returns the certificates with whose keys signatures may be checked.
func X509s(certs []*Certificate) (out []*x509.Certificate) {
	for _, c := range certs {
		if c.Verifies() {
			out = append(out, c.X509())
		}
	}
	return out
}
