package rotation

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Material is a candidate for the next generation, as a [Source] delivers it.
//
// It is refused when the key does not fit the leaf; when a certificate of the
// chain did not sign the one before it, or the chain ends before an issuer
// that the bundle or the generation in effect knows; when the leaf is expired,
// is a CA or has no usage for TLS; when the bundle is empty or holds a
// certificate that is no CA. Self-signed certificates at the end of the chain
// are tolerated and not sent. A leaf that is not valid yet waits until it is,
// unless the one in effect has expired.
//
// A bundle that no longer holds the root of the own chain is published with
// Change.Warning: on the way from one root to another that state is intended,
// and peers may still know the root.
type Material struct {
	Certificate tls.Certificate        // leaf first, then its issuers; PrivateKey is a crypto.Signer
	Others      []tls.Certificate      // more of the kind, which a server chooses by the name that a client asks for
	Roots       []*x509.Certificate    // trust anchors for peers, of any order
	Revoked     []*x509.RevocationList // what the issuers of peers took back, at most one list per issuer
	Issuers     []*x509.Certificate    // intermediates that signed lists in Revoked; they give no trust to peers
	Version     string                 // for logs only, for instance a directory name
}

// LogValue implements [slog.LogValuer]: the version, never the key.
func (m Material) LogValue() slog.Value { return slog.StringValue(m.Version) }

// String returns the version, so that no format verb reaches the key.
func (m Material) String() string { return "material " + m.Version }

// GoString is String: %#v would print the scalar of the private key.
func (m Material) GoString() string { return m.String() }

// Generation is one published identity: leaf, key, chain and trust bundle that
// belong together. It is immutable and stays readable after it was superseded
// and after the Identity was closed.
type Generation struct {
	number    uint64
	published time.Time
	version   string
	cert      tls.Certificate
	chain     []*x509.Certificate // as sent to peers: no trailing roots
	roots     []*x509.Certificate
	pool      *x509.CertPool
	thumb     string
	trust     string
	digest    [sha256.Size]byte // of everything above: identical content is no rotation
	untrusted error             // why the own bundle does not verify the own chain, or nil
}

// Number counts the generations of an Identity from 1.
func (g *Generation) Number() uint64 { return g.number }

// Leaf is the own certificate. The caller must not change it.
func (g *Generation) Leaf() *x509.Certificate { return g.chain[0] }

// Chain is the leaf and its issuers as sent to peers, without the root.
func (g *Generation) Chain() []*x509.Certificate { return slices.Clone(g.chain) }

// Roots is the trust bundle for peers.
func (g *Generation) Roots() []*x509.Certificate { return slices.Clone(g.roots) }

// Thumbprint is x5t#S256 of the leaf (RFC 8705 §3.1): base64url without padding.
func (g *Generation) Thumbprint() string { return g.thumb }

// TrustDigest names the trust bundle, whatever its order: hex, as the authority computes it.
func (g *Generation) TrustDigest() string { return g.trust }

// PublishedAt is when the generation came into effect.
func (g *Generation) PublishedAt() time.Time { return g.published }

// LogValue implements [slog.LogValuer].
func (g *Generation) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("generation", g.number), slog.String("fingerprint", pemfile.Fingerprint(g.Leaf())))
}

// String names the generation by its leaf; no format verb reaches the key.
func (g *Generation) String() string { return "generation " + pemfile.Fingerprint(g.Leaf()) }

// GoString is String.
func (g *Generation) GoString() string { return g.String() }

func (g *Generation) expired(now time.Time) bool { return !now.Before(g.Leaf().NotAfter) }

// names identifies the server towards the scope of tickets: a ticket of one
// service must not open a session with another that happens to share a key.
func (g *Generation) names() string {
	leaf := g.Leaf()
	names := append(pemfile.Names(leaf), leaf.Subject.CommonName)
	slices.Sort(names)
	return strings.Join(names, "\x00")
}

// assemble derives everything of a generation that the gate does not decide.
// The number and the time of publication are set by the publisher.
func assemble(m Material, chain []*x509.Certificate, key crypto.Signer) *Generation {
	g := &Generation{version: m.Version, chain: chain, roots: slices.Clone(m.Roots), pool: x509.NewCertPool(), trust: stepapi.TrustDigest(m.Roots)}
	g.cert = tls.Certificate{
		PrivateKey: key, Leaf: chain[0],
		// A key behind a token may sign with less than its type suggests.
		SupportedSignatureAlgorithms: m.Certificate.SupportedSignatureAlgorithms,
		OCSPStaple:                   m.Certificate.OCSPStaple, SignedCertificateTimestamps: m.Certificate.SignedCertificateTimestamps,
	}
	h := sha256.New()
	for _, c := range chain {
		g.cert.Certificate = append(g.cert.Certificate, c.Raw)
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(c.Raw)))
		_, _ = h.Write(size[:]) // a hash does not fail
		_, _ = h.Write(c.Raw)
	}
	_, _ = h.Write([]byte(g.trust))
	h.Sum(g.digest[:0])
	for _, r := range m.Roots {
		g.pool.AddCert(r)
	}
	sum := sha256.Sum256(chain[0].Raw)
	g.thumb = base64.RawURLEncoding.EncodeToString(sum[:])
	return g
}
