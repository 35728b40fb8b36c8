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

// ErrRevoked is matched by the errors of handshakes with peers whose certificate, or the
// certificate of one of its issuers, is revoked.
var ErrRevoked = errors.New("certificate is revoked")

// revocations are the certificates that the lists of a generation name, and those that
// only earlier lists named. They take about 70 bytes for each serial number. They are
// not changed once made.
type revocations struct {
	lists  []revocationList
	given  [sha256.Size]byte // of Material.Kept
	named  revocation.Index  // by the lists
	kept   *revocation.Kept  // by earlier lists only
	digest string            // of issuers and serial numbers: a list with a new signature alone is no change
}

type revocationList struct {
	issuer  *x509.Certificate
	name    string            // of the issuer
	sum     [sha256.Size]byte // of the list, signature included
	edition revocation.Edition
	until   time.Time // NextUpdate, zero if it does not say
}

// readRevocations verifies the lists of a candidate. prev is in effect, or nil. chain is
// the own chain; a bundle alone has none. An issuer in m.Issuers counts only if it chains
// to the bundle.
//
// It refuses a list that is older than the one in effect, and certificates that were
// revoked stay so until they have ended. So neither an old file nor an authority that has lost its
// record admits them again. It also refuses a candidate that lacks a list of an issuer
// that is still trusted, unless the list is so old that the issuer would have replaced
// it: then the authority has retired the list.
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

// listIssuers returns the CA certificates that may have signed lists: the roots, the
// issuers of the own chain, and m.Issuers. It returns none if there is no list.
func listIssuers(m Material, chain []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if len(m.Revoked) == 0 {
		return nil, nil
	}
	issuers := slices.Clone(m.Roots)
	if len(chain) > 0 {
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

// chainsTo reports whether c chains to the roots of m. An issuer that was retired may have
// expired. That is no reason to refuse the candidate, so c is verified for a moment of
// its own validity.
func chainsTo(c *x509.Certificate, m Material, now time.Time) bool {
	_, err := verify(append([]*x509.Certificate{c}, m.Issuers...), x509.VerifyOptions{
		Roots: certs.Pool(m.Roots...), CurrentTime: clampToValidity(c, now), KeyUsages: anyUsage,
	})
	return err == nil
}

// clampToValidity returns the moment within the validity of c that is nearest to now.
func clampToValidity(c *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

// anyUsage is for the verification of a chain without its usages, which are checked by
// checkLeaf and checkIssuerUsages.
var anyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}

// verify verifies the first certificate of a chain, with the others as intermediates.
func verify(chain []*x509.Certificate, opts x509.VerifyOptions) ([][]*x509.Certificate, error) {
	opts.Intermediates = certs.Pool(chain[1:]...)
	return chain[0].Verify(opts)
}

// listIssuer returns the one of issuers that has signed the list, whose signature it
// verifies.
func listIssuer(list *x509.RevocationList, issuers []*x509.Certificate) (*x509.Certificate, error) {
	// A list that is not complete says so in a critical extension: a delta list, a list of
	// certificates of other issuers, or one for some reasons or kinds of certificates only
	// (RFC 5280 §5.2.4, §5.2.5).
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

// checkSuccession returns why r must not follow prev, or nil; see readRevocations.
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

// withIssuers returns m with the issuers of the lists of prev: a candidate that lacks a
// list may lack the certificate of its issuer too.
func withIssuers(m Material, prev *revocations) Material {
	m.Issuers = slices.Clone(m.Issuers)
	for _, l := range prev.lists {
		m.Issuers = append(m.Issuers, l.issuer)
	}
	return m
}

// sameIssuer compares issuers by name and key, because an issuer may have several
// certificates.
func (l revocationList) sameIssuer(o revocationList) bool {
	return revocation.IssuerOf(l.issuer) == revocation.IssuerOf(o.issuer)
}

// index makes the maps by which handshakes look up serial numbers: of the lists of m, and
// of the certificates that only prev or m.Kept refuse.
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
	r.digest = r.refusedDigest()
	return nil
}

// refusedDigest returns a digest in hex of all certificates that are refused, by a list or
// because of an earlier one. It is "" if there are none.
func (r *revocations) refusedDigest() string {
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

// digestOf hashes strings with their lengths, so that two different lists of strings
// never have the same input.
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

// check returns an [ErrRevoked] if each of the chains has a revoked certificate. With one
// chain that has none, the peer is as good as without the others.
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

// oldest returns the earliest thisUpdate (RFC 5280 §5.1.2.4) of the lists of intermediates,
// zero without them. The list of a root is signed anew only when it changes, so its age says
// nothing.
func (r *revocations) oldest() (at time.Time) {
	for _, l := range r.lists {
		if bytes.Equal(l.issuer.RawIssuer, l.issuer.RawSubject) {
			continue
		}
		if at.IsZero() || l.edition.ThisUpdate.Before(at) {
			at = l.edition.ThisUpdate
		}
	}
	return at
}

// stale returns an error that names a list which should have been replaced by now, or
// nil. The list is still enforced, but certificates that were revoked since are not on it.
func (r *revocations) stale(now time.Time) error {
	for _, l := range r.lists {
		if !l.until.IsZero() && now.After(l.until) {
			return fmt.Errorf("the revocation list of %q was to be replaced by %s", l.name, l.until.UTC().Format(time.RFC3339))
		}
	}
	return nil
}
