package rotation

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
)

// Material is a candidate for the next generation, as a [Source] delivers it.
//
// It is refused when a key does not fit its leaf; when the chain ends before an
// issuer that the bundle or the generation in effect knows; when a leaf is expired,
// is a CA or has no usage for TLS; when the bundle is empty or holds a
// certificate that is no CA; when a revocation list is not signed by a CA under
// the bundle, is older than the one in effect, or is missing though there was
// one that its issuer had no reason yet to replace. Self-signed certificates and
// those that do not lead upwards from the leaf are tolerated and not sent; the
// latter, a weak key and a key file that others can read are warned of and shown
// in Warnings of [Identity.Status]. A leaf that is not valid yet waits until it is, unless the one in effect
// has expired.
//
// What a revocation list named stays refused until that certificate has ended,
// whatever later lists say; see RevokedKept of [Identity.Status].
//
// A bundle that no longer holds the root of the own chain is published with
// Change.Warning: on the way from one root to another that state is intended,
// and peers may still know the root.
//
// Each of Others is judged by itself, by the rules for a leaf and its chain. A
// bad one does not keep the rest from being published: the last good one at its
// index stays until it expires, and is then left out of handshakes. One that is
// not valid yet is left out until it is, unless there is nothing older.
type Material struct {
	Certificate tls.Certificate        // leaf first, then its issuers; PrivateKey is a crypto.Signer
	Others      []tls.Certificate      // more of the kind, which a server chooses by the name that a client asks for
	Roots       []*x509.Certificate    // trust anchors for peers, of any order
	Revoked     []*x509.RevocationList // what the issuers of peers took back, at most one list per issuer
	Issuers     []*x509.Certificate    // intermediates that signed lists in Revoked; they give no trust to peers
	Kept        []byte                 // what lists before Revoked named and is refused still, in the form of crl.kept
	Version     string                 // for logs only, for instance a directory name

	// A source of files says here what it found. Of each of Others: its name, and why
	// it cannot be used if so; the certificate then holds the leaf at most. Both are
	// void unless they are as long as Others.
	OtherNames  []string
	OtherErrors []error
	// Faults that are tolerated, for Warnings of [Identity.Status]; for instance a key file that others can read.
	Faults []string
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
	bundle
	number    uint64
	published time.Time
	version   string
	own       certPair        // the one that clients show
	cert      tls.Certificate // of own
	others    []other         // for servers
	thumb     string
	warnings  []string // what else is wrong and no reason to refuse it
	untrusted error    // why the own bundle does not verify the own chain, or nil
}

// Number counts the generations of an Identity from 1.
func (g *Generation) Number() uint64 { return g.number }

// Leaf is the own certificate. The caller must not change it.
func (g *Generation) Leaf() *x509.Certificate { return g.own.chain[0] }

// Chain is the leaf and its issuers as sent to peers, without the root.
func (g *Generation) Chain() []*x509.Certificate { return slices.Clone(g.own.chain) }

// Certificate is the own certificate with its key, for libraries that want the
// pair. The caller must not change it, and should ask anew for each use.
func (g *Generation) Certificate() tls.Certificate { return g.cert }

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
	return slog.GroupValue(slog.Uint64("generation", g.number), slog.String("fingerprint", certs.Fingerprint(g.Leaf())))
}

// String names the generation by its leaf; no format verb reaches the key.
func (g *Generation) String() string { return "generation " + certs.Fingerprint(g.Leaf()) }

// GoString is String.
func (g *Generation) GoString() string { return g.String() }

// from is when the own certificate begins to be valid.
func (g *Generation) from() time.Time { return g.Leaf().NotBefore }

// until is when the own certificate expires.
func (g *Generation) until() time.Time { return g.Leaf().NotAfter }

func (g *Generation) expired(now time.Time) bool { return !now.Before(g.until()) }

// digest is over everything that peers can notice from now on: identical content is no rotation.
func (g *Generation) digest(now time.Time) string {
	return digestOf(append(g.own.ders(), g.trust, g.revoked.digest, g.digestOthers(now)))
}

func (g *Generation) digestOthers(now time.Time) string {
	var parts []string
	for _, o := range g.others {
		parts = append(parts, o.name)
		for _, p := range o.live(now) {
			parts = append(parts, p.ders()...)
		}
	}
	return digestOf(parts)
}

// ticketNames identifies the server towards the scope of tickets: a ticket of one
// service must not open a session with another that happens to share a key.
func ticketNames(pairs []certPair) string {
	var names []string
	for _, p := range pairs {
		names = append(append(names, certs.Names(p.chain[0])...), p.chain[0].Subject.CommonName)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "\x00")
}

// assemble derives everything of a generation that the gate does not decide.
// The number and the time of publication are set by the publisher.
func assemble(m Material, own certPair, lists *revocations) *Generation {
	sum := sha256.Sum256(own.chain[0].Raw)
	return &Generation{
		bundle: newBundle(m.Roots, lists), version: m.Version, own: own, cert: own.certificate(), thumb: base64.RawURLEncoding.EncodeToString(sum[:]),
	}
}
