// Package cacert makes the certificates of an authority, roots and intermediates,
// and names them: by their key identifiers and serial numbers.
//
//	root, err := cacert.New(cacert.Template{Name: "ArtStore", Lifetime: cacert.RootLifetime}, cacert.Issuer{})
//	intermediate, err := cacert.New(cacert.Template{Name: "ArtStore", Lifetime: cacert.IntermediateLifetime}, root)
//
// It keeps nothing: package statedir writes certificates and keys to disk.
//
// Invariants:
//
//   - An intermediate does not outlive the root that signs it, and cannot sign
//     other CA certificates (TestIntermediateIsBounded).
//   - Two serial numbers are never equal in practice, and a later one is larger
//     by its first bits, which are the time (TestSerial).
//   - A certificate that takes the place of another one signs for no more names
//     and no longer paths (TestSuccessorIsAlike).
package cacert

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"

	"go.step.sm/crypto/x509util"

	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

const (
	// CA certificates are back-dated by more than leaves: a leaf that is valid before
	// its issuer would fail wherever a chain is checked at the begin of the leaf.
	backdate = time.Hour

	// RootLifetime is how long a root is valid where nothing else is asked for.
	RootLifetime = 10 * 365 * 24 * time.Hour
	// IntermediateLifetime is the same for an intermediate.
	IntermediateLifetime = 5 * 365 * 24 * time.Hour

	serialRandom = 80 // bits; CA/B BR §7.1 asks for 64
)

// Issuer is a CA certificate with its key.
type Issuer struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// KeyURI says where the key is, if it is in a key store: see package keystore.
	KeyURI string
}

// NoPathLength is the path length of a root that sets no limit.
const NoPathLength = -1

// Template says what certificate to make.
type Template struct {
	Name     string        // organization, and the first word of the common name
	KeyType  string        // as in package keytype; "" is its default
	Lifetime time.Duration // from now; cut at the end of the parent
	// PathLength is how many intermediates there may be on a path below a root
	// (RFC 5280 §4.2.1.9): 0 is the default of 1, and [NoPathLength] no limit. An
	// intermediate signs leaves only, whatever this is.
	PathLength int
	// Permitted are the names that certificates below this one may have. The zero
	// value permits all.
	Permitted Constraints
	// Key is the key of the certificate, if it exists already, and KeyURI where it is, as
	// in Issuer; KeyType is then not used. nil makes a new one.
	Key    crypto.Signer
	KeyURI string
}

// SuccessorOf is the template of a certificate that replaces c: the same kind of
// key, path length and permitted names, and the same lifetime as c was made with.
func SuccessorOf(c *x509.Certificate, name string) Template {
	length := c.MaxPathLen
	if length == 0 && !c.MaxPathLenZero || !c.BasicConstraintsValid {
		length = NoPathLength
	}
	life := c.NotAfter.Sub(c.NotBefore)
	if life > backdate { // one that was made elsewhere may live for less
		life -= backdate
	}
	return Template{
		Name: name, KeyType: keytype.Successor(c.PublicKey), Lifetime: life,
		PathLength: length, Permitted: Constraints{c},
	}
}

// New makes a root (parent zero) or an intermediate. Several with the same role
// are in use at the same time during a rotation, so a part of the key id is in the
// subject: a client that builds a chain never has to choose between equal names.
// Errors are those of making the key and of signing.
func New(want Template, parent Issuer) (Issuer, error) {
	key := want.Key
	if key == nil {
		var err error
		if key, err = keytype.New(want.KeyType); err != nil {
			return Issuer{}, err
		}
	}
	id, err := x509util.GenerateSubjectKeyID(key.Public())
	if err != nil {
		return Issuer{}, fmt.Errorf("naming a key: %w", err)
	}
	serial, err := NewSerial()
	if err != nil {
		return Issuer{}, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(want.Lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          id,
	}
	want.Permitted.put(t)
	role := "Root"
	signer, by := key, t
	if parent.Cert == nil {
		if t.MaxPathLen = want.PathLength; t.MaxPathLen == 0 {
			t.MaxPathLen = 1
		}
	} else {
		role, signer, by = "Intermediate", parent.Key, parent.Cert
		t.MaxPathLenZero = true
		if t.NotAfter.After(by.NotAfter) {
			t.NotAfter = by.NotAfter
		}
	}
	t.Subject = subject(want.Name, role, id)
	der, err := x509.CreateCertificate(rand.Reader, t, by, key.Public(), signer)
	if err != nil {
		return Issuer{}, fmt.Errorf("signing %q: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return Issuer{cert, key, want.KeyURI}, err
}

func subject(name, role string, id []byte) pkix.Name {
	return pkix.Name{Organization: []string{name}, CommonName: fmt.Sprintf("%s %s %s", name, role, hex.EncodeToString(id[:4]))}
}

// NewSerial returns a positive serial number (RFC 5280 §4.1.2.2): the milliseconds
// since 1970, then random bits. Certificates that are issued together are then next
// to each other in the indexes of the record, and a commit writes a few pages of an
// index instead of one for each certificate. The error is that of the random source.
func NewSerial() (*big.Int, error) {
	random, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialRandom))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial: %w", err)
	}
	n := big.NewInt(time.Now().UnixMilli())
	return n.Lsh(n, serialRandom).Or(n, random), nil
}

// KeyID is the subject key identifier of a CA certificate, in hex. The record and
// the addresses of revocation lists name an issuer by it.
func KeyID(c *x509.Certificate) string { return hex.EncodeToString(c.SubjectKeyId) }

// IsRoot reports whether a CA certificate is self-signed (RFC 5280 §3.2). The names are compared
// first: most certificates are told apart without a signature.
func IsRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

// RootOf returns the root that signed an intermediate, or nil.
func RootOf(intermediate *x509.Certificate, roots []*x509.Certificate) *x509.Certificate {
	for _, r := range roots {
		if intermediate.CheckSignatureFrom(r) == nil {
			return r
		}
	}
	return nil
}
