// Package stepapi has the wire types of the HTTP API of step-ca, as the step CLI v0.30 speaks
// it. The authority and its clients share them, so that a client does not link the
// authority.
//
// Each route exists at "/" and at "/1.0". Certificates and requests are PEM in JSON strings.
package stepapi

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"slices"
)

// Paths, without the optional prefix /1.0.
const (
	PathHealth        = "/health"
	PathVersion       = "/version"
	PathRoot          = "/root/" // + fingerprint of the root
	PathRoots         = "/roots"
	PathFederation    = "/federation"
	PathIntermediates = "/intermediates"
	PathProvisioners  = "/provisioners"
	PathSign          = "/sign"
	PathRenew         = "/renew"
	PathRekey         = "/rekey"
	PathRevoke        = "/revoke"
	PathCRL           = "/crl"
	PathRevoked       = "/revoked" // ours, like the next ones; a stock step-ca answers 404

	PathLogHead            = "/log/head"
	PathLogProof           = "/log/proof"
	PathLogEntry           = "/log/entry/" // + index
	PathRecordAuthorities  = "/records/authorities"
	PathRecordCertificates = "/records/certificates"
	PathRecordEvents       = "/records/events"

	PathToken = "/token" // POST, over mutual TLS with the certificate of an enroller

	Prefix = "/1.0"
)

// MaxBody is the largest body either side reads, in bytes.
const MaxBody = 64 << 10

// MaxRevoked is the largest answer of GET /revoked that a client reads, in bytes.
// An entry with a serial of 128 bits, a reason and its end takes 54 bytes of DER and
// 74 of this JSON, so that 300 000 revoked certificates are 22 MB. The authority
// warns when its answer is half as long: beyond the cap every client fails to
// refresh its lists, and is not ready any more once those it has are out of date.
const MaxRevoked = 64 << 20

// AuthorityPurpose is the extended key usage id-kp-cmcRA (RFC 6402 §2.10), by which
// RFC 7030 §3.6.1 recognises a server that enrols. The authority puts it into the
// certificate that it issues to itself and into no other: without it, any service
// under the same root with a name of the authority could collect tokens in its place.
var AuthorityPurpose = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 28}

// IsAuthority reports whether c has [AuthorityPurpose]. It does not verify the chain of c: the
// caller must do that first.
func IsAuthority(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.UnknownExtKeyUsage, AuthorityPurpose.Equal)
}

// HeaderTrustDigest carries, with each renewal, the [TrustDigest] of the bundle
// in effect at the client. The authority records it for each lineage, so that a root is
// retired only when all clients have its successor. It is ours; step ignores it.
const HeaderTrustDigest = "Artstore-Trust-Digest"

// HeaderReporter names, beside [HeaderTrustDigest], the process that reports, or the place of its
// files: 64 letters, digits, "-" and "_" at most, which a copy of the files does not have.
// Processes that have copies of one certificate are told apart by it. It is ours; step ignores it.
const HeaderReporter = "Artstore-Reporter"

// HeaderLogHead has, beside each certificate, the newest signed head of the authority's log in
// base64. A client that keeps it can prove a later change of the log. It is ours; step
// ignores it.
const HeaderLogHead = "Artstore-Log-Head"

// MaxLogHead is the longest head of the log that is read, in bytes.
const MaxLogHead = 8 << 10

// ProofIssuer is the issuer of a renewal token: a JWT in the header
// "Authorization: Bearer" of POST /renew and /rekey, signed with the key of the
// certificate that it carries in its header [ProofHeader], for when that
// certificate cannot be shown in a handshake any more. The name is step's.
const ProofIssuer = "step-ca-client/1.0"

// ProofHeader holds the chain, leaf first, each as base64 of its DER.
const ProofHeader = "x5cInsecure"

// RequestFingerprint names a CSR (DER) in the member "x5rt#S256" of the claim
// "cnf", which binds a token to one request.
func RequestFingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// SignRequest is the body of POST /sign.
type SignRequest struct {
	CSR string `json:"csr"` // PEM
	OTT string `json:"ott"` // one-time token, a JWT
	// NotBefore and NotAfter are RFC 3339 times or durations. The lifetime
	// comes from the profile: a request may shorten it, never lengthen it.
	NotBefore string `json:"notBefore,omitempty"`
	NotAfter  string `json:"notAfter,omitempty"`
}

// RekeyRequest is the body of POST /rekey, sent over mutual TLS.
type RekeyRequest struct {
	CSR string `json:"csr"` // PEM; only its public key counts
}

// SignResponse answers /sign, /renew and /rekey with status 201.
type SignResponse struct {
	Certificate string   `json:"crt"`       // leaf, PEM
	CA          string   `json:"ca"`        // issuing intermediate, PEM
	Chain       []string `json:"certChain"` // leaf first, each PEM
}

// RevokeRequest is the body of POST /revoke.
type RevokeRequest struct {
	Serial     string `json:"serial"` // decimal
	OTT        string `json:"ott,omitempty"`
	ReasonCode int    `json:"reasonCode"` // RFC 5280 §5.3.1
	Reason     string `json:"reason,omitempty"`
	Passive    bool   `json:"passive"`
}

// RevokeResponse answers /revoke.
type RevokeResponse struct {
	Status string `json:"status"` // "ok"
}

// MaxNames is how many names a token may have: clients read no more of one.
const MaxNames = 100

// TokenRequest is the body of POST /token, sent over mutual TLS: a one-time
// enrolment token for another service. Ours; a stock step-ca answers 404.
type TokenRequest struct {
	Service string   `json:"service"`
	Names   []string `json:"sans,omitempty"` // absent: all names that its profile lists
	// Lifetime is a duration such as "90s"; empty means 5 min, 1 h is the most.
	// The token never outlives the certificate that asks for it.
	Lifetime string `json:"lifetime,omitempty"`
}

// TokenResponse answers /token with status 201.
type TokenResponse struct {
	OTT string `json:"ott"` // as SignRequest has it
}

// RootResponse answers /root/{fingerprint}.
type RootResponse struct {
	CA string `json:"ca"` // PEM
}

// RootsResponse answers /roots (status 201) and /federation.
type RootsResponse struct {
	Certificates []string `json:"crts"` // PEM each
}

// RevokedResponse answers GET /revoked: one list per intermediate whose leaves
// may still be valid, and one per root, which names revoked intermediates. The answer
// carries an ETag.
type RevokedResponse struct {
	Lists []RevokedList `json:"lists"`
}

// RevokedList is a list with the certificate whose key signed it.
type RevokedList struct {
	Issuer string `json:"issuer"` // PEM
	CRL    string `json:"crl"`    // PEM, "X509 CRL"
}

// LogProof answers GET /log/proof: that the log of size To begins with the log of
// size From (RFC 6962 §2.1.2).
type LogProof struct {
	From   int64    `json:"from"`
	To     int64    `json:"to"`
	Head   string   `json:"head"` // signed note; To is its size unless another was asked for
	Hashes [][]byte `json:"hashes"`
}

// LogEntry answers GET /log/entry/{index}: the entry, and that the tree of the
// head has it (RFC 6962 §2.1.1).
type LogEntry struct {
	Index  int64    `json:"index"`
	Leaf   []byte   `json:"leaf"`
	Entry  []byte   `json:"entry,omitempty"` // absent if it was pruned
	Pruned bool     `json:"pruned,omitempty"`
	Head   string   `json:"head"` // signed note
	Hashes [][]byte `json:"hashes"`
}

// Error is the body of every refusal.
type Error struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

// TrustDigest names a set of roots, whatever their order: the SHA-256 over the
// sorted SHA-256 fingerprints of their DER, in lower-case hex.
func TrustDigest(roots []*x509.Certificate) string {
	sums := make([][sha256.Size]byte, len(roots))
	for i, c := range roots {
		sums[i] = sha256.Sum256(c.Raw)
	}
	return DigestOf(sums)
}

// DigestOf is [TrustDigest] of roots whose fingerprints are known. It reorders the slice.
func DigestOf(sums [][sha256.Size]byte) string {
	slices.SortFunc(sums, func(a, b [sha256.Size]byte) int { return slices.Compare(a[:], b[:]) })
	h := sha256.New()
	for _, s := range slices.Compact(sums) {
		h.Write(s[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}
