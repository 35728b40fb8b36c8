package ca

import (
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
	// CA certificates are back-dated by more than leaves ever are: a leaf that is
	// valid before its issuer would fail wherever chains are checked at its start.
	caBackdate = time.Hour

	defaultRootLifetime         = 10 * 365 * 24 * time.Hour
	defaultIntermediateLifetime = 5 * 365 * 24 * time.Hour

	serialRandom = 80 // bits; CA/B BR §7.1 asks for 64
)

// issuer is a CA certificate with its key.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newIssuer makes a root (parent zero) or an intermediate. Several with the same
// role live side by side during a rotation, so a part of the key id is in the
// subject: chain building then never guesses between equal names.
func newIssuer(name, keyKind string, life time.Duration, parent issuer) (issuer, error) {
	key, err := keytype.New(keyKind)
	if err != nil {
		return issuer{}, err
	}
	id, err := x509util.GenerateSubjectKeyID(key.Public())
	if err != nil {
		return issuer{}, fmt.Errorf("naming a key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return issuer{}, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-caBackdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SubjectKeyId:          id,
	}
	role := "Root"
	signer, by := key, t
	if parent.cert == nil {
		t.MaxPathLen = 1
	} else {
		role, signer, by = "Intermediate", parent.key, parent.cert
		t.MaxPathLenZero = true
		if t.NotAfter.After(by.NotAfter) {
			t.NotAfter = by.NotAfter
		}
	}
	t.Subject = pkix.Name{Organization: []string{name}, CommonName: fmt.Sprintf("%s %s %s", name, role, hex.EncodeToString(id[:4]))}
	der, err := x509.CreateCertificate(rand.Reader, t, by, key.Public(), signer)
	if err != nil {
		return issuer{}, fmt.Errorf("signing %q: %w", t.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	return issuer{cert, key}, err
}

// newSerial is positive (RFC 5280 §4.1.2.2): the milliseconds since 1970, then
// random bits. What is issued together lies together in the indexes of the record,
// so that a commit writes a few of their pages and not one for each certificate.
func newSerial() (*big.Int, error) {
	random, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialRandom))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial: %w", err)
	}
	n := big.NewInt(time.Now().UnixMilli())
	return n.Lsh(n, serialRandom).Or(n, random), nil
}

func issuerID(c *x509.Certificate) string { return hex.EncodeToString(c.SubjectKeyId) }

// rootOf returns the root that signed an intermediate, or nil.
func rootOf(intermediate *x509.Certificate, roots []*x509.Certificate) *x509.Certificate {
	for _, r := range roots {
		if intermediate.CheckSignatureFrom(r) == nil {
			return r
		}
	}
	return nil
}
