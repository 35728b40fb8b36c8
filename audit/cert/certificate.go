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

// Certificate is what checks and reports need of a certificate, read once.
type Certificate struct {
	Raw                                  []byte // DER; what follows are parts of it
	RawSubject, RawIssuer, PublicKeyInfo []byte

	Name, IssuerName    string // as people call them
	Names               []string
	Serial              string // as this project shows it everywhere
	NotBefore, NotAfter time.Time
	IsCA                bool
	KeyUsage            x509.KeyUsage
	ExtKeyUsage         []x509.ExtKeyUsage
	OtherUsages         bool // it names a usage that crypto/x509 has no name for
	HasAltNames         bool // the extension for names is there, whatever is in it
	NoUsage             bool // a list of usages is there and empty, which allows none
	HasHostNames        bool // a host name or an address is among its names
	SignatureAlgorithm  x509.SignatureAlgorithm
	SignatureName       string // the name of the algorithm, also of one that Go does not know
	Key                 KeyKind
	Fingerprint         [sha256.Size]byte

	parsed *x509.Certificate // nil for one that crypto/x509 refuses
}

// KeyKind is what there is to know of a public key without using it.
type KeyKind struct {
	Algorithm string // RSA, ECDSA P-256, DSA; of the rest, the name of its object identifier
	Bits      int    // 0 for those that come in one size
}

func (k KeyKind) String() string {
	if k.Algorithm == "RSA" && k.Bits > 0 { // 0 if only its name could be read
		return fmt.Sprintf("RSA %d", k.Bits)
	}
	return k.Algorithm
}

// Oversized reports whether a signature check with this key costs more than a file
// may cost. Such a certificate is shown and judged, and never computed with: neither
// its own signature on a request nor those of the certificates below it.
func (k KeyKind) Oversized() bool { return k.Algorithm == "RSA" && k.Bits > pubkey.MaxRSA }

// Parse reads one certificate in DER. It gives a certificate, or why
// there is none, or both for one that crypto/x509 refuses and whose dates can be
// read. Of one without a date, the error says what else was read.
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

// X509 is the certificate as crypto/x509 has it, or nil for one that it refuses.
func (c *Certificate) X509() *x509.Certificate { return c.parsed }

// SelfIssued reports whether it names itself as its issuer.
func (c *Certificate) SelfIssued() bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// Verifies reports whether signatures may be checked with its key.
func (c *Certificate) Verifies() bool { return c.parsed != nil && !c.Key.Oversized() }

// MayBeTrusted reports whether it can stand in a trust bundle: crypto/x509 takes it.
func (c *Certificate) MayBeTrusted() bool { return c.parsed != nil }

// tlsKeyUsages are those of which a certificate that names any needs one, to be
// taken from a TLS server (RFC 5280 §4.2.1.3).
const tlsKeyUsages = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement

// ForSigningOnly reports whether the key usage is that of an authority that can be nothing else.
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

// SelfSigned reports whether its own key has signed it. Of an algorithm that
// crypto/x509 does not verify, the names decide.
func (c *Certificate) SelfSigned() bool {
	if !c.SelfIssued() || !c.Verifies() {
		return false
	}
	err := c.parsed.CheckSignature(c.SignatureAlgorithm, c.parsed.RawTBSCertificate, c.parsed.Signature)
	_, old := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || old || errors.Is(err, x509.ErrUnsupportedAlgorithm)
}

// HexFingerprint is the SHA-256 of the DER, in lower-case hex.
func (c *Certificate) HexFingerprint() string { return hex.EncodeToString(c.Fingerprint[:]) }

var (
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// saysNothing reports whether an extension lists usages and has none in it, which
// crypto/x509 does not tell from one that is absent.
func saysNothing(x *x509.Certificate, id asn1.ObjectIdentifier) bool {
	return x.KeyUsage == 0 && id.Equal(oidKeyUsage) ||
		len(x.ExtKeyUsage)+len(x.UnknownExtKeyUsage) == 0 && id.Equal(oidExtKeyUsage)
}

// HasEmptyUsages reports whether a list of usages is there and has none in it.
func HasEmptyUsages(x *x509.Certificate) bool {
	return slices.ContainsFunc(x.Extensions, func(e pkix.Extension) bool { return saysNothing(x, e.Id) })
}

var oidNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// FromX509 is [Parse] for what crypto/x509 has parsed.
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
	if c.Name == "" { // to format a whole name takes longer than to parse it
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

// KeyKindOf is the kind of the public key of a certificate.
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

// Life is the time from issue to end, without the back-dating.
func (c *Certificate) Life() humantime.Seconds {
	return humantime.Between(lifetime.IssuedAt(c.NotBefore, c.NotAfter), c.NotAfter)
}

// ID is the beginning of a fingerprint.
type ID [16]byte

// ID tells it from others.
func (c *Certificate) ID() ID { return ID(c.Fingerprint[:]) }

// Inverted reports whether it ends before it begins.
func (c *Certificate) Inverted() bool { return c.NotAfter.Before(c.NotBefore) }

// IssuerIn finds the certificate whose key signed c, or nil. Of those with the name of
// the issuer it tries no more than maxIssuers.
func (c *Certificate) IssuerIn(certs []*Certificate) *Certificate {
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

// BarsTLS reports whether it names key usages, and none of those of which TLS needs one.
func (c *Certificate) BarsTLS() bool { return c.KeyUsage != 0 && c.KeyUsage&tlsKeyUsages == 0 }

// X509s are the certificates that signatures may be checked with, as crypto/x509 has them.
func X509s(certs []*Certificate) (out []*x509.Certificate) {
	for _, c := range certs {
		if c.Verifies() {
			out = append(out, c.X509())
		}
	}
	return out
}
