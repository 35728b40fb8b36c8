package audit

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/pubkey"
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
	if s.Key == nil || s.Key.Locked || s.Key.Mode&looseBits == 0 {
		return fine, ""
	}
	// A group may read what belongs to root: the rule is the one of the services.
	if info, err := os.Stat(s.Key.Path); err == nil && info.Mode().Perm() == s.Key.Mode.Perm() && !fileperm.Exposed(info) {
		return fine, ""
	}
	return Warn, fmt.Sprintf("others may use its key: %s has mode %04o", s.Key.Path, s.Key.Mode.Perm())
}

func nameMismatch(s *Subject, _ criteria) (Severity, string) {
	if s.Host == "" || !s.leaf() || s.Cert.X509().VerifyHostname(s.Host) == nil {
		return fine, ""
	}
	return Crit, "it does not have the name " + s.Host
}

// noNames asks for the extension, not for names that Go knows: an otherName is one too.
func noNames(s *Subject, _ criteria) (Severity, string) {
	if !s.leaf() || !allows(s.Cert, x509.ExtKeyUsageServerAuth) {
		return fine, ""
	}
	if s.Cert.hasNames {
		return fine, ""
	}
	return Warn, "no subject alternative name: clients do not look at the common name"
}

// allows reports whether a certificate may be used so; one that names no usage may be used for anything.
func allows(c *Certificate, use x509.ExtKeyUsage) bool {
	return len(c.usages) == 0 && !c.otherUsages ||
		slices.Contains(c.usages, use) || slices.Contains(c.usages, x509.ExtKeyUsageAny)
}

const (
	leastRSA   = 2048
	leastCurve = 256
)

func weakKey(s *Subject, _ criteria) (Severity, string) {
	k := s.Cert.key
	if k.oversized() {
		return Crit, fmt.Sprintf("%s: peers compute with %d bits at most, and nothing is verified with it here", k, pubkey.MaxRSA)
	}
	weak := k.algorithm == "DSA" || k.algorithm == "RSA" && k.bits < leastRSA ||
		strings.HasPrefix(k.algorithm, "ECDSA") && k.bits < leastCurve
	if !weak {
		return fine, ""
	}
	return Crit, "weak key: " + k.String()
}

var weakSignatures = []x509.SignatureAlgorithm{
	x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
}

// weakSignature leaves roots alone: they are trusted for being known, nobody verifies their signature.
func weakSignature(s *Subject, _ criteria) (Severity, string) {
	if s.Cert.selfIssued() || !slices.Contains(weakSignatures, s.Cert.signature) {
		return fine, ""
	}
	return Crit, "weak signature: " + s.Cert.signature.String()
}

// wrongUsage judges what the certificate may be used for against what it is, and
// as far as that is seen, what it is used for.
func wrongUsage(s *Subject, _ criteria) (Severity, string) {
	c := s.Cert
	says := func(u x509.KeyUsage) bool { return c.keyUsage&u != 0 }
	forTLS := allows(c, x509.ExtKeyUsageServerAuth) || allows(c, x509.ExtKeyUsageClientAuth)
	switch {
	case c.keyUsage != 0 && c.isCA && !says(x509.KeyUsageCertSign):
		return Crit, "it is an authority's and may not sign certificates: no chain through it verifies"
	case c.isCA:
		return fine, ""
	case s.Kind == kindEndpoint && !allows(c, x509.ExtKeyUsageServerAuth):
		return Crit, "a server shows it, and it is not for servers"
	case says(x509.KeyUsageCertSign):
		return Warn, "it may sign certificates, and is no authority's"
	case c.keyUsage != 0 && forTLS && !says(x509.KeyUsageDigitalSignature):
		return Warn, "it may not sign, as every handshake of TLS 1.3 does"
	}
	return fine, ""
}

// sharedKeys finds those with the same public key under another name. Under the
// same name that is one certificate in several places, or its renewal. The first
// one of a key is gone when the second comes, so the finding is that of the
// second, and names the first.
func sharedKeys(*view) func(*Row) (Severity, string) {
	type holder struct{ name, place string }
	holders := map[[sha256.Size]byte]holder{}
	return func(r *Row) (Severity, string) {
		if r.Cert == nil || r.Err != nil {
			return fine, ""
		}
		key := sha256.Sum256(r.Cert.public)
		first, known := holders[key]
		switch {
		case !known:
			holders[key] = holder{r.Cert.name, r.Place}
		case first.name != r.Cert.name:
			return Warn, "its key is also that of " + first.name + " in " + first.place
		}
		return fine, ""
	}
}

func oldProtocol(s *Subject, _ criteria) (Severity, string) {
	if s.TLS == nil || s.TLS.Version == 0 || s.TLS.Version >= tls.VersionTLS13 {
		return fine, ""
	}
	return Warn, "it speaks " + protocol(s.TLS) + " to a client that offers TLS 1.3"
}
