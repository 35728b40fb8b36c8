package rotation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/revocation"
)

// ErrRevoked is matched by the errors of handshakes with peers whose issuer took their certificate back.
var ErrRevoked = errors.New("certificate is revoked")

// revocations is what the lists of a generation take back, and what earlier ones
// did. About 70 bytes for each serial.
type revocations struct {
	lists  []revocationList
	given  [sha256.Size]byte // of Material.Kept
	named  revocation.Index
	kept   *revocation.Kept
	digest string // of issuers and serials alone: a list that is only signed anew is no change
}

type revocationList struct {
	issuer  *x509.Certificate
	name    string            // of the issuer
	sum     [sha256.Size]byte // of the list, signature included
	edition revocation.Edition
	until   time.Time // NextUpdate, zero if it does not say
}

// readRevocations verifies the lists of a candidate. prev is what is in effect,
// or nil. An issuer in m.Issuers counts once it chains to the bundle.
//
// A list never gets older, and what it names stays refused until it has ended, so
// that neither an old file nor an authority that forgot lets anyone in again. A
// list does not get lost either while its issuer is trusted, unless it is so old
// that its issuer would have replaced it: then it was retired.
func readRevocations(m Material, chain []*x509.Certificate, prev *revocations, now time.Time) (*revocations, error) {
	issuers, err := listIssuers(m, chain, now)
	if err != nil {
		return nil, err
	}
	r := &revocations{given: sha256.Sum256(m.Kept), named: revocation.Index{}}
	for _, list := range m.Revoked {
		issuer, err := listIssuer(list, issuers)
		if err != nil {
			return nil, err
		}
		r.lists = append(r.lists, revocationList{issuer, list.Issuer.CommonName, sha256.Sum256(list.Raw), revocation.EditionOf(list), list.NextUpdate})
	}
	if err := r.checkSuccession(prev, m, now); err != nil {
		return nil, err
	}
	if prev != nil && r.given == prev.given && slices.EqualFunc(r.lists, prev.lists, func(a, b revocationList) bool { return a.sum == b.sum }) {
		return prev, nil // the usual case: only the leaf is new
	}
	return r, r.index(m, prev, now)
}

// listIssuers are the CA certificates that may have signed lists.
func listIssuers(m Material, chain []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if len(m.Revoked) == 0 {
		return nil, nil
	}
	issuers := slices.Clone(m.Roots)
	if len(chain) > 0 { // there is none with a bundle alone
		issuers = append(issuers, chain[1:]...)
	}
	for _, c := range m.Issuers {
		if !chainsTo(c, m, now) {
			return nil, fmt.Errorf("the issuer %q of a revocation list does not chain to the trust bundle", c.Subject.CommonName)
		}
		issuers = append(issuers, c)
	}
	return issuers, nil
}

// chainsTo reports whether c is under the bundle. A retired issuer may have
// expired; its list then says nothing any more, and is no reason to refuse the rest.
func chainsTo(c *x509.Certificate, m Material, now time.Time) bool {
	_, err := verify(append([]*x509.Certificate{c}, m.Issuers...), x509.VerifyOptions{
		Roots: certs.Pool(m.Roots...), CurrentTime: clampToValidity(c, now), KeyUsages: anyUsage,
	})
	return err == nil
}

// clampToValidity is the moment of c's validity that is nearest to now.
func clampToValidity(c *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

// anyUsage is for questions about a chain alone; usages are looked at elsewhere.
var anyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}

// verify verifies the first certificate; the others may be its intermediates.
func verify(chain []*x509.Certificate, opts x509.VerifyOptions) ([][]*x509.Certificate, error) {
	opts.Intermediates = certs.Pool(chain[1:]...)
	return chain[0].Verify(opts)
}

func listIssuer(list *x509.RevocationList, issuers []*x509.Certificate) (*x509.Certificate, error) {
	// Delta lists, and lists for some certificates or by other issuers only, say so in critical extensions (RFC 5280 §5.2).
	for _, e := range list.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("the revocation list of %q has the critical extension %s, which is not supported", list.Issuer.CommonName, e.Id)
		}
	}
	for _, c := range issuers {
		if bytes.Equal(c.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(c) == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the revocation list of %q is not signed by a CA that the trust bundle knows", list.Issuer.CommonName)
}

// checkSuccession checks that r may follow prev.
func (r *revocations) checkSuccession(prev *revocations, m Material, now time.Time) error {
	if prev == nil {
		return nil
	}
	for _, old := range prev.lists {
		i := slices.IndexFunc(r.lists, old.sameIssuer)
		switch {
		case i >= 0 && old.edition.Supersedes(r.lists[i].edition):
			return fmt.Errorf("the revocation list of %q is of %s, older than the one in effect",
				old.issuer.Subject.CommonName, r.lists[i].edition.ThisUpdate.UTC().Format(time.RFC3339))
		case i < 0 && !revocation.HalfOver(old.edition.ThisUpdate, old.until, now) && now.Before(old.issuer.NotAfter) && chainsTo(old.issuer, withIssuers(m, prev), now):
			return fmt.Errorf("the revocation list of %q is missing, and so far there was one", old.issuer.Subject.CommonName)
		}
	}
	return nil
}

func withIssuers(m Material, prev *revocations) Material {
	m.Issuers = slices.Clone(m.Issuers)
	for _, l := range prev.lists {
		m.Issuers = append(m.Issuers, l.issuer)
	}
	return m
}

func (l revocationList) sameIssuer(o revocationList) bool {
	return revocation.IssuerOf(l.issuer) == revocation.IssuerOf(o.issuer)
}

// index makes the lists fit for handshakes, with what prev refuses and they do not name.
func (r *revocations) index(m Material, prev *revocations, now time.Time) error {
	for i, list := range m.Revoked {
		if err := r.named.Add(list, r.lists[i].issuer); err != nil {
			return err
		}
	}
	given, err := revocation.ParseKept(m.Kept)
	if err != nil {
		return fmt.Errorf("reading the revoked certificates that are kept: %w", err)
	}
	var before revocation.Index
	var kept *revocation.Kept
	if prev != nil {
		before, kept = prev.named, prev.kept
	}
	if kept, err = kept.Follow(before, r.named, now); err != nil {
		return err
	}
	if r.kept, err = kept.Join(given, r.named, now); err != nil {
		return err
	}
	r.digest = r.digestOf()
	return nil
}

// digestOf is over what is refused, whether a list names it or it is kept.
func (r *revocations) digestOf() string {
	var refused []string
	for key, entry := range r.kept.All {
		refused = append(refused, string(key[:])+entry)
	}
	for key, entries := range r.named {
		refused = append(refused, string(key[:]))
		for serial := range entries {
			refused = append(refused, string(key[:])+serial)
		}
	}
	if len(refused) == 0 {
		return ""
	}
	slices.Sort(refused)
	return hex.EncodeToString([]byte(digestOf(refused)))
}

// digestOf hashes strings so that no two lists of them read alike.
func digestOf(parts []string) string {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		_, _ = h.Write(size[:]) // a hash does not fail
		_, _ = h.Write([]byte(p))
	}
	return string(h.Sum(nil))
}

// check returns an [ErrRevoked] when every way from the peer to a root leads over a revoked certificate.
func (r *revocations) check(chains [][]*x509.Certificate) error {
	if r == nil || len(r.named) == 0 && r.kept.Len() == 0 {
		return nil
	}
	c := revocation.Blocking(chains, func(issuer revocation.Issuer, serial string) bool {
		return r.named.Names(issuer, serial) || r.kept.Names(issuer, serial)
	})
	if c == nil {
		return nil
	}
	return fmt.Errorf("%w: serial %s of %q", ErrRevoked, certs.Serial(c), strings.Join(certs.Names(c), " "))
}

// oldest is when the list that was not signed anew for longest was signed.
func (r *revocations) oldest() (at time.Time) {
	for _, l := range r.lists {
		if at.IsZero() || l.edition.ThisUpdate.Before(at) {
			at = l.edition.ThisUpdate
		}
	}
	return at
}

// stale says which list should have been replaced by now. It is enforced all the
// same, but certificates that were revoked since are not on it.
func (r *revocations) stale(now time.Time) error {
	for _, l := range r.lists {
		if !l.until.IsZero() && now.After(l.until) {
			return fmt.Errorf("the revocation list of %q was to be replaced by %s", l.name, l.until.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
