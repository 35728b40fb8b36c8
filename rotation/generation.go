package rotation

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// bundle is what peers are verified against: roots and revocation lists. It is
// immutable.
type bundle struct {
	roots   []*x509.Certificate
	pool    *x509.CertPool
	revoked *revocations
	trust   string // digest of the roots
}

func newBundle(roots []*x509.Certificate, lists *revocations) bundle {
	return bundle{roots: slices.Clone(roots), pool: certs.Pool(roots...), revoked: lists, trust: stepapi.TrustDigest(roots)}
}

// checkRevoked returns an error that matches [ErrRevoked] if each of the chains has a
// revoked certificate. Every VerifyConnection of this package calls it.
func (b *bundle) checkRevoked(chains [][]*x509.Certificate) error { return b.revoked.check(chains) }

// Generation is one published identity: leaf, key, chain and trust bundle that
// belong together. It is immutable and stays readable after it was superseded
// and after the Identity was closed.
type Generation struct {
	bundle
	number    uint64
	published time.Time
	version   string
	own       certPair        // the certificate that clients show, and servers too
	cert      tls.Certificate // of own
	others    []other         // for servers only
	thumb     string
	warnings  []string // faults that are tolerated
	untrusted error    // why the own bundle does not verify the own chain, or nil
}

// Number counts the generations of an Identity from 1.
func (g *Generation) Number() uint64 { return g.number }

// Leaf returns the own certificate. The caller must not change it.
func (g *Generation) Leaf() *x509.Certificate { return g.own.chain[0] }

// Chain returns the leaf and its issuers as peers get them, without the root.
func (g *Generation) Chain() []*x509.Certificate { return slices.Clone(g.own.chain) }

// Certificate returns the own certificate with its key, for libraries that take the
// pair. The caller must not change it, and should ask again for each use.
func (g *Generation) Certificate() tls.Certificate { return g.cert }

// Roots returns the trust bundle for peers.
func (g *Generation) Roots() []*x509.Certificate { return slices.Clone(g.roots) }

// Thumbprint returns x5t#S256 of the leaf (RFC 8705 §3.1): base64url without padding.
func (g *Generation) Thumbprint() string { return g.thumb }

// TrustDigest returns a digest of the trust bundle in hex, as the authority computes
// it. It does not depend on the order of the roots.
func (g *Generation) TrustDigest() string { return g.trust }

// PublishedAt returns when the generation came into effect.
func (g *Generation) PublishedAt() time.Time { return g.published }

// LogValue implements [slog.LogValuer].
func (g *Generation) LogValue() slog.Value {
	return slog.GroupValue(slog.Uint64("generation", g.number), slog.String("fingerprint", certs.Fingerprint(g.Leaf())))
}

// String names the generation by its leaf; no format verb reaches the key.
func (g *Generation) String() string { return "generation " + certs.Fingerprint(g.Leaf()) }

// GoString is String: %#v would print the private key.
func (g *Generation) GoString() string { return g.String() }

func (g *Generation) from() time.Time { return g.Leaf().NotBefore }

func (g *Generation) until() time.Time { return g.Leaf().NotAfter }

func (g *Generation) expired(now time.Time) bool { return !now.Before(g.until()) }

// digest covers everything that peers can notice from now on. A candidate with the same
// digest is no rotation.
func (g *Generation) digest(now time.Time) string {
	return digestOf(append(g.own.ders(), g.trust, g.revoked.digest, g.digestOthers(now)))
}

// digestOthers covers the names of the other certificates, and their versions that have
// not expired.
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

// certPair is a certificate that passed the gate, with its key.
type certPair struct {
	given tls.Certificate
	key   crypto.Signer
	chain []*x509.Certificate // leaf first, without trailing roots
	ends  []*x509.Certificate // the roots that came with the chain, and are not sent

	warnings []string // faults that are tolerated
}

func (p certPair) ders() (ders []string) {
	for _, c := range p.chain {
		ders = append(ders, string(c.Raw))
	}
	return ders
}

func (p certPair) certificate() tls.Certificate {
	c := tls.Certificate{
		PrivateKey: p.key, Leaf: p.chain[0],
		// A key behind a token may sign with less than its type suggests.
		SupportedSignatureAlgorithms: p.given.SupportedSignatureAlgorithms,
		OCSPStaple:                   p.given.OCSPStaple, SignedCertificateTimestamps: p.given.SignedCertificateTimestamps,
	}
	for _, cert := range p.chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// other is one of Material.Others within a generation. It expires by itself: a bad
// certificate for one name must not end the service under another name.
type other struct {
	name     string     // the same in each generation
	versions []certPair // newest first; the last good one stays beside one that is refused or not valid yet
	refused  error      // why the newest one of the source is not among the versions
	serial   string     // of the newest one of the source, "" if it could not be read
}

// live returns the versions that are in use now or will be, newest first.
func (o other) live(now time.Time) []certPair {
	var live []certPair
	for _, p := range o.versions {
		if !now.Before(p.chain[0].NotAfter) {
			continue
		}
		live = append(live, p)
		if !now.Before(p.chain[0].NotBefore) {
			break // an older version will not be used again
		}
	}
	return live
}

// inUse returns the version that handshakes choose now: the newest valid one. If none is
// valid, it is one that is not valid yet, because the clock of a peer may be ahead. ok is
// false if all have expired.
func (o other) inUse(now time.Time) (p certPair, ok bool) {
	live := o.live(now)
	if len(live) == 0 {
		return certPair{}, false
	}
	if last := live[len(live)-1]; !now.Before(last.chain[0].NotBefore) {
		return last, true
	}
	return live[0], true
}

// other returns the other certificate with this name, or the zero value if there is
// none. g may be nil.
func (g *Generation) other(name string) other {
	if g == nil {
		return other{}
	}
	i := slices.IndexFunc(g.others, func(o other) bool { return o.name == name })
	if i < 0 {
		return other{}
	}
	return g.others[i]
}

// ticketNames returns all names of the certificates, as one part of the scope of ticket
// keys: a ticket of one service must not be good at a service with other names.
func ticketNames(pairs []certPair) string {
	var names []string
	for _, p := range pairs {
		names = append(append(names, certs.Names(p.chain[0])...), p.chain[0].Subject.CommonName)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), "\x00")
}

// ticketIssuers returns the issuers of the certificates that a server shows, for the scope of
// its tickets: after a resumption the client still judges the chain of the first handshake.
func ticketIssuers(pairs []certPair) string {
	var issuers []string
	for _, p := range pairs {
		for _, c := range p.chain[1:] {
			issuers = append(issuers, string(c.Raw))
		}
	}
	slices.Sort(issuers)
	return digestOf(slices.Compact(issuers))
}

// assemble makes a generation of what the gate has accepted. Number and time of
// publication are set by publish.
func assemble(m Material, own certPair, lists *revocations) *Generation {
	sum := sha256.Sum256(own.chain[0].Raw)
	return &Generation{
		bundle: newBundle(m.Roots, lists), version: m.Version, own: own, cert: own.certificate(), thumb: base64.RawURLEncoding.EncodeToString(sum[:]),
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
