package workload

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/spiffe"
)

// Identities are the identities that a server can hand out, by name. The zero value has none.
// Identities may come and go while a server runs: open streams get the changes. All
// methods are safe for concurrent use.
type Identities struct {
	mu      sync.Mutex // guards the fields below
	entries map[string]*entry
	wake    chan struct{} // closed at the next change; nil if nobody waits
}

// entry is one identity with the message that is made of its newest generation.
type entry struct {
	id   *rotation.Identity
	stop func() // ends the subscription

	mu      sync.Mutex // guards the fields below: many streams ask at the same time, and one of them converts
	last    *svid
	revoked []*x509.RevocationList
}

// svid is a generation in the types of the protocol, or why it cannot be that. It is immutable.
type svid struct {
	gen     *rotation.Generation
	id      spiffeid.ID
	chain   []byte // DER, leaf first
	key     []byte // PKCS #8
	roots   []*x509.Certificate
	trust   []byte // roots in DER
	revoked []*x509.RevocationList
	err     error
}

// IdentityStatus is what an operator wants to know of one identity.
type IdentityStatus struct {
	Name     string
	SPIFFEID string    // "" if Err is set, unless the certificate has expired
	NotAfter time.Time // of the certificate in effect
	Err      error     // why the identity is not served, or nil
	ListsErr error     // why its revocation lists are not sent, or nil
}

// Put adds an identity, or replaces the one with this name. The caller closes id. One that is
// closed goes on to be served with its last generation, until that expires.
func (s *Identities) Put(name string, id *rotation.Identity) {
	e := &entry{id: id}
	e.stop = id.Subscribe(func(rotation.Change) { s.changed() })
	s.replace(name, e)
}

// SetRevoked sets the revocation lists that are sent with an identity, which a [rotation.Source]
// gives as Material.Revoked. The caller has verified them, and does not change them any more.
// Without an identity of this name it does nothing.
func (s *Identities) SetRevoked(name string, lists []*x509.RevocationList) {
	s.mu.Lock()
	e := s.entries[name]
	s.mu.Unlock()
	if e != nil && e.setRevoked(lists) {
		s.changed()
	}
}

// setRevoked reports whether the lists are others than before.
func (e *entry) setRevoked(lists []*x509.RevocationList) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.EqualFunc(e.revoked, lists, func(a, b *x509.RevocationList) bool { return bytes.Equal(a.Raw, b.Raw) }) {
		return false
	}
	e.revoked, e.last = slices.Clone(lists), nil
	return true
}

// Remove takes an identity out. Streams that had it get a message without it; a stream
// without any other identity ends.
func (s *Identities) Remove(name string) { s.replace(name, nil) }

func (s *Identities) replace(name string, e *entry) {
	s.mu.Lock()
	old := s.entries[name]
	if s.entries == nil {
		s.entries = map[string]*entry{}
	}
	s.entries[name] = e
	if e == nil {
		delete(s.entries, name)
	}
	s.mu.Unlock()
	if old != nil {
		old.stop()
	}
	s.changed()
}

// Status returns the state of each identity, in the order of names.
func (s *Identities) Status() []IdentityStatus {
	s.mu.Lock()
	names := make([]string, 0, len(s.entries))
	for name := range s.entries {
		names = append(names, name)
	}
	s.mu.Unlock()
	slices.Sort(names)
	var all []IdentityStatus
	for _, name := range names {
		if v, err := s.current(name); v != nil {
			_, tooLong := newest([]named{{name, v}})
			all = append(all, IdentityStatus{name, idText(v.id), v.gen.Leaf().NotAfter, err, tooLong})
		}
	}
	return all
}

func idText(id spiffeid.ID) string {
	if id.IsZero() {
		return "" // not the text of a zero ID, which reads like one
	}
	return id.String()
}

// changed wakes all that wait.
func (s *Identities) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// next returns a channel that is closed at the next change. Whoever asks for it first and
// looks at the identities then misses no change.
func (s *Identities) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// errNotYet is for callers: it may pass without anybody changing a setting.
var errNotYet = errors.New("has no certificate yet")

// current returns what is handed out for a name. If err is not nil, it must not be handed out.
// The value is nil if there is no such identity.
func (s *Identities) current(name string) (*svid, error) {
	s.mu.Lock()
	e := s.entries[name]
	s.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("the identity %q %w", name, errNotYet)
	}
	v := e.current()
	switch until := v.gen.Leaf().NotAfter; {
	case v.err != nil:
		return v, fmt.Errorf("the certificate of the identity %q cannot be handed out: %w", name, v.err)
	case !time.Now().Before(until):
		return v, fmt.Errorf("the certificate of the identity %q has expired at %s: it %w", name, until.UTC().Format(time.RFC3339), errNotYet)
	}
	return v, nil
}

// current returns the generation in effect, converted once.
func (e *entry) current() *svid {
	e.mu.Lock()
	defer e.mu.Unlock()
	if g := e.id.Current(); e.last == nil || e.last.gen != g {
		e.last = convert(g)
		e.last.revoked = e.revoked
	}
	return e.last
}

// convert makes the parts of messages of a generation.
func convert(g *rotation.Generation) *svid {
	v := &svid{gen: g, roots: g.Roots()}
	v.trust = joinRaw(v.roots)
	if v.id, v.err = spiffe.LeafID(g.Leaf()); v.err != nil {
		return v
	}
	if v.key, v.err = x509.MarshalPKCS8PrivateKey(g.Certificate().PrivateKey); v.err != nil {
		v.err = fmt.Errorf("its private key cannot leave the place where it is: %w", v.err) // the text names the type only
		return v
	}
	v.chain = joinRaw(g.Chain())
	return v
}

// message returns the SVID with the name of its identity as the hint.
func (v *svid) message(hint string) *pb.X509SVID {
	return &pb.X509SVID{SpiffeId: v.id.String(), X509Svid: v.chain, X509SvidKey: v.key, Bundle: v.trust, Hint: hint}
}

// bundles returns the roots by the ID of the trust domain. Identities of one trust domain
// usually trust the same roots; if not, their roots are joined.
func bundles(all []named) map[string][]byte {
	roots := map[string][]*x509.Certificate{}
	for _, n := range all {
		td := n.svid.id.TrustDomain().IDString()
		roots[td] = append(roots[td], n.svid.roots...)
	}
	out := make(map[string][]byte, len(roots))
	for td, certs := range roots {
		slices.SortFunc(certs, func(a, b *x509.Certificate) int { return strings.Compare(string(a.Raw), string(b.Raw)) })
		out[td] = joinRaw(slices.CompactFunc(certs, (*x509.Certificate).Equal))
	}
	return out
}

// maxLists bounds the revocation lists of one message, in bytes. Each stream of a slow reader holds
// one, and clients of gRPC refuse messages that are longer than 4 MiB.
const maxLists = 256 << 10

// lists returns the revocation lists of a message in DER; none if they are too long.
func lists(all []named) (out [][]byte) {
	found, _ := newest(all)
	for _, l := range found {
		out = append(out, l.Raw)
	}
	return out
}

// newest returns the newest list of each issuer, because identities of one trust domain need not have
// fetched a list at the same moment. An issuer is known by name and key, as in RFC 5280 §6.3.3.
func newest(all []named) (out []*x509.RevocationList, tooLong error) {
	for _, n := range all {
		for _, l := range n.svid.revoked {
			i := slices.IndexFunc(out, func(o *x509.RevocationList) bool {
				return bytes.Equal(o.RawIssuer, l.RawIssuer) && bytes.Equal(o.AuthorityKeyId, l.AuthorityKeyId)
			})
			switch {
			case i < 0:
				out = append(out, l)
			case revocation.EditionOf(l).Supersedes(revocation.EditionOf(out[i])):
				out[i] = l
			}
		}
	}
	size := 0
	for _, l := range out {
		size += len(l.Raw)
	}
	if size > maxLists {
		return nil, fmt.Errorf("its revocation lists have %d bytes, more than the %d that are sent", size, maxLists)
	}
	return out, nil
}

func joinRaw(certs []*x509.Certificate) (der []byte) {
	for _, c := range certs {
		der = append(der, c.Raw...)
	}
	return der
}
