package cacert

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"go.step.sm/crypto/x509util"

	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pubkey"
)

// Request makes a certificate request (RFC 2986), in DER, for an intermediate, and its key. The
// request asks for the extensions of an intermediate, which whoever signs it may copy or not.
// Of the template, Lifetime, PathLength and Permitted are not used: whoever signs decides.
// Errors are those of making the key and of signing.
func Request(want Template) (der []byte, key crypto.Signer, err error) {
	if key = want.Key; key == nil {
		if key, err = keytype.New(want.KeyType); err != nil {
			return nil, nil, err
		}
	}
	id, err := x509util.GenerateSubjectKeyID(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("naming a key: %w", err)
	}
	basic, err := asn1.Marshal(struct {
		CA     bool
		Length int
	}{true, 0}) // BasicConstraints, RFC 5280 §4.2.1.9
	if err != nil {
		return nil, nil, fmt.Errorf("requesting an intermediate: %w", err)
	}
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0b110}, BitLength: 7}) // keyCertSign and cRLSign, RFC 5280 §4.2.1.3
	if err != nil {
		return nil, nil, fmt.Errorf("requesting an intermediate: %w", err)
	}
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: subject(want.Name, "Intermediate", id),
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basic},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage},
		},
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("requesting an intermediate: %w", err)
	}
	return der, key, nil
}

// Check refuses an intermediate or a root that was made elsewhere and that the authority
// cannot work with. key is the public key that the intermediate must have.
func Check(intermediate, root *x509.Certificate, key crypto.PublicKey) error {
	if err := CheckRoot(root); err != nil {
		return err
	}
	if err := pubkey.Validate(intermediate.PublicKey); err != nil {
		return fmt.Errorf("the key of the intermediate: %w", err)
	}
	name := intermediate.Subject.CommonName
	if public, ok := intermediate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key) {
		return fmt.Errorf("the certificate %q does not have the key of the intermediate", name)
	}
	if err := checkCA(intermediate, "the intermediate"); err != nil {
		return err
	}
	if bytes.Equal(intermediate.RawSubject, root.RawSubject) {
		return fmt.Errorf("the intermediate %q has the subject of its root, so programs could not tell them apart", name)
	}
	if _, err := intermediate.Verify(x509.VerifyOptions{Roots: certs.Pool(root), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("the intermediate %q does not chain to the root %q: %s", name, root.Subject.CommonName, strings.TrimPrefix(err.Error(), "x509: "))
	}
	if intermediate.NotAfter.After(root.NotAfter) || intermediate.NotBefore.Before(root.NotBefore) {
		return fmt.Errorf("the intermediate %q is not within the dates of its root %q", name, root.Subject.CommonName)
	}
	if len(intermediate.ExtKeyUsage)+len(intermediate.UnknownExtKeyUsage) > 0 { // programs intersect it with that of the leaf
		for _, want := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if _, err := intermediate.Verify(x509.VerifyOptions{Roots: certs.Pool(root), KeyUsages: []x509.ExtKeyUsage{want}}); err != nil {
				return fmt.Errorf("the extended key usage of the intermediate %q does not let it sign for servers and clients", name)
			}
		}
	}
	return nil
}

// CheckRoot refuses a root that was made elsewhere and that no intermediate can be under.
func CheckRoot(root *x509.Certificate) error {
	if err := pubkey.Validate(root.PublicKey); err != nil {
		return fmt.Errorf("the key of the root: %w", err)
	}
	name := root.Subject.CommonName
	if !bytes.Equal(root.RawSubject, root.RawIssuer) || root.CheckSignatureFrom(root) != nil {
		return fmt.Errorf("the root %q is not signed by its own key", name)
	}
	if root.MaxPathLen == 0 && root.MaxPathLenZero {
		return fmt.Errorf("the root %q may not sign intermediates: its path length is 0", name)
	}
	return checkCA(root, "the root")
}

// checkCA wants what RFC 5280 demands of the certificate of a CA that signs certificates
// (§4.2.1.9, §4.2.1.3, §4.2.1.2) and lists (§4.2.1.3).
func checkCA(c *x509.Certificate, role string) error {
	var bad error
	switch usage := x509.KeyUsageCertSign | x509.KeyUsageCRLSign; {
	case !c.BasicConstraintsValid || !c.IsCA:
		bad = errors.New("it is no CA certificate (basicConstraints)")
	case c.KeyUsage&usage != usage:
		bad = errors.New("it may not sign both certificates and revocation lists (keyUsage keyCertSign, cRLSign)")
	case len(c.SubjectKeyId) == 0 || len(c.SubjectKeyId) > 64:
		bad = errors.New("it has no subject key identifier of 1 to 64 bytes")
	default:
		return nil
	}
	return fmt.Errorf("%s %q: %w", role, c.Subject.CommonName, bad)
}
