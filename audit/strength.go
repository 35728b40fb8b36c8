package audit

import (
	"crypto/dsa" //nolint:staticcheck // SA1019: to name what nobody should use
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// looseBits are the permissions that let others read a key.
const looseBits fs.FileMode = 0o077

func keyMismatch(s *Subject, _ criteria) (Severity, string) {
	if s.Key == nil || s.Key.Fits {
		return fine, ""
	}
	return Crit, "the key in " + s.Key.Path + " does not fit"
}

func keyReadable(s *Subject, _ criteria) (Severity, string) {
	if s.Key == nil || s.Key.Mode&looseBits == 0 {
		return fine, ""
	}
	return Warn, fmt.Sprintf("others may use its key: %s has mode %04o", s.Key.Path, s.Key.Mode.Perm())
}

func nameMismatch(s *Subject, _ criteria) (Severity, string) {
	if s.Host == "" || !s.leaf() || s.Cert.VerifyHostname(s.Host) == nil {
		return fine, ""
	}
	return Crit, "it does not have the name " + s.Host
}

var oidNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// noNames asks for the extension, not for names that Go knows: an otherName is one too.
func noNames(s *Subject, _ criteria) (Severity, string) {
	if !s.leaf() || !allows(s.Cert, x509.ExtKeyUsageServerAuth) {
		return fine, ""
	}
	for _, e := range s.Cert.Extensions {
		if e.Id.Equal(oidNames) {
			return fine, ""
		}
	}
	return Warn, "no subject alternative name: clients do not look at the common name"
}

// allows reports whether a certificate may be used so; one that names no usage may be used for anything.
func allows(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, use) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

const (
	leastRSA   = 2048
	leastCurve = 256
)

func weakKey(s *Subject, _ criteria) (Severity, string) {
	switch k := s.Cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= leastRSA {
			return fine, ""
		}
	case *ecdsa.PublicKey:
		if k.Params().BitSize >= leastCurve {
			return fine, ""
		}
	case *dsa.PublicKey:
	default:
		return fine, ""
	}
	return Crit, "weak key: " + keyName(s.Cert)
}

var weakSignatures = []x509.SignatureAlgorithm{
	x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
}

// weakSignature leaves roots alone: they are trusted for being known, nobody verifies their signature.
func weakSignature(s *Subject, _ criteria) (Severity, string) {
	if selfIssued(s.Cert) || !slices.Contains(weakSignatures, s.Cert.SignatureAlgorithm) {
		return fine, ""
	}
	return Crit, "weak signature: " + s.Cert.SignatureAlgorithm.String()
}

// wrongUsage judges what the certificate may be used for against what it is, and
// as far as that is seen, what it is used for.
func wrongUsage(s *Subject, _ criteria) (Severity, string) {
	c := s.Cert
	says := func(u x509.KeyUsage) bool { return c.KeyUsage&u != 0 }
	forTLS := allows(c, x509.ExtKeyUsageServerAuth) || allows(c, x509.ExtKeyUsageClientAuth)
	switch {
	case c.KeyUsage != 0 && c.IsCA && !says(x509.KeyUsageCertSign):
		return Crit, "it is an authority's and may not sign certificates: no chain through it verifies"
	case c.IsCA:
		return fine, ""
	case s.Kind == kindEndpoint && !allows(c, x509.ExtKeyUsageServerAuth):
		return Crit, "a server shows it, and it is not for servers"
	case says(x509.KeyUsageCertSign):
		return Warn, "it may sign certificates, and is no authority's"
	case c.KeyUsage != 0 && forTLS && !says(x509.KeyUsageDigitalSignature):
		return Warn, "it may not sign, as every handshake of TLS 1.3 does"
	}
	return fine, ""
}

// maxSharers bounds how many names of one key are kept: with thousands, the list helps nobody.
const maxSharers = 4

// shareKeys tells each row which others have its public key under another name.
// Under the same name that is one certificate in several places, or its renewal.
func shareKeys(rows []Row) {
	holders := map[[sha256.Size]byte][]string{}
	each := func(visit func(r *Row, key [sha256.Size]byte, name string)) {
		for i := range rows {
			if r := &rows[i]; r.Cert != nil && r.Err == nil {
				visit(r, sha256.Sum256(r.Cert.RawSubjectPublicKeyInfo), name(r.Cert))
			}
		}
	}
	each(func(_ *Row, key [sha256.Size]byte, name string) {
		if known := holders[key]; len(known) <= maxSharers && !slices.Contains(known, name) {
			holders[key] = append(known, name)
		}
	})
	each(func(r *Row, key [sha256.Size]byte, name string) {
		for _, other := range holders[key] {
			if other != name && len(r.sharers) < maxSharers {
				r.sharers = append(r.sharers, other)
			}
		}
	})
}

// sameKey knows of the others from a pass over the whole report.
func sameKey(s *Subject, _ criteria) (Severity, string) {
	if len(s.sharers) == 0 {
		return fine, ""
	}
	return Warn, "its key is also that of " + strings.Join(s.sharers, ", ")
}

func oldProtocol(s *Subject, _ criteria) (Severity, string) {
	if s.TLS == nil || s.TLS.Version == 0 || s.TLS.Version >= tls.VersionTLS13 {
		return fine, ""
	}
	return Warn, "it speaks " + protocol(s.TLS) + " to a client that offers TLS 1.3"
}
