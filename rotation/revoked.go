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

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// ErrRevoked is matched by the errors of handshakes with peers whose issuer took their certificate back.
var ErrRevoked = errors.New("certificate is revoked")

// revocations is what the lists of a generation take back. It knows issuers by
// their public key: a renewed CA certificate over the same key has the same list.
// About 60 bytes for each serial.
type revocations struct {
	lists  []revocationList
	byKey  map[string]map[string]struct{} // SubjectPublicKeyInfo of the issuer → serials, big endian
	digest string                         // of issuers and serials alone: a list that is only signed anew is no change
}

type revocationList struct {
	issuer *x509.Certificate
	sum    [sha256.Size]byte // of the list, signature included
	at     time.Time         // ThisUpdate
	until  time.Time         // NextUpdate, zero if it does not say
}

// readRevocations verifies the lists of a candidate. prev is what is in effect,
// or nil. An issuer in m.Issuers counts once it chains to the bundle.
//
// A list never gets older and never gets lost while its issuer is trusted, so
// that putting back an old file does not let anyone in again.
func readRevocations(m Material, chain []*x509.Certificate, prev *revocations, now time.Time) (*revocations, error) {
	issuers, err := listIssuers(m, chain, now)
	if err != nil {
		return nil, err
	}
	r := &revocations{}
	for _, list := range m.Revoked {
		issuer, err := listIssuer(list, issuers)
		if err != nil {
			return nil, err
		}
		r.lists = append(r.lists, revocationList{issuer, sha256.Sum256(list.Raw), list.ThisUpdate, list.NextUpdate})
	}
	if err := r.succeeds(prev, m, now); err != nil {
		return nil, err
	}
	if prev != nil && slices.EqualFunc(r.lists, prev.lists, func(a, b revocationList) bool { return a.sum == b.sum }) {
		return prev, nil // the usual case: only the leaf is new
	}
	return r, r.index(m.Revoked)
}

// listIssuers are the CA certificates that may have signed lists.
func listIssuers(m Material, chain []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	if len(m.Revoked) == 0 {
		return nil, nil
	}
	issuers := slices.Concat(m.Roots, chain[1:])
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
		Roots: poolOf(m.Roots), CurrentTime: within(c, now), KeyUsages: anyUsage,
	})
	return err == nil
}

// within is the moment of c's validity that is nearest to now.
func within(c *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
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

// succeeds checks that r may follow prev.
func (r *revocations) succeeds(prev *revocations, m Material, now time.Time) error {
	if prev == nil {
		return nil
	}
	for _, old := range prev.lists {
		i := slices.IndexFunc(r.lists, old.sameIssuer)
		switch {
		case i >= 0 && r.lists[i].at.Before(old.at):
			return fmt.Errorf("the revocation list of %q is of %s, older than the one in effect",
				old.issuer.Subject.CommonName, r.lists[i].at.UTC().Format(time.RFC3339))
		case i < 0 && now.Before(old.issuer.NotAfter) && chainsTo(old.issuer, withIssuers(m, prev), now):
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
	return bytes.Equal(l.issuer.RawSubjectPublicKeyInfo, o.issuer.RawSubjectPublicKeyInfo)
}

// index makes the lists fit for handshakes.
func (r *revocations) index(lists []*x509.RevocationList) error {
	r.byKey = make(map[string]map[string]struct{}, len(lists))
	sums := make([]string, 0, len(lists))
	for i, list := range lists {
		key := string(r.lists[i].issuer.RawSubjectPublicKeyInfo)
		if r.byKey[key] != nil {
			return fmt.Errorf("there are two revocation lists of %q", list.Issuer.CommonName)
		}
		serials := make(map[string]struct{}, len(list.RevokedCertificateEntries))
		sorted := make([]string, 0, len(list.RevokedCertificateEntries))
		for _, e := range list.RevokedCertificateEntries {
			for _, x := range e.Extensions {
				if x.Critical { // a certificateIssuer here would make the entry one of another CA (RFC 5280 §5.3.3)
					return fmt.Errorf("the revocation list of %q has an entry with the critical extension %s, which is not supported", list.Issuer.CommonName, x.Id)
				}
			}
			serial := string(e.SerialNumber.Bytes())
			serials[serial] = struct{}{}
			sorted = append(sorted, serial)
		}
		slices.Sort(sorted)
		r.byKey[key] = serials
		sums = append(sums, digestOf(append(slices.Compact(sorted), key)))
	}
	if len(sums) > 0 {
		slices.Sort(sums)
		r.digest = hex.EncodeToString([]byte(digestOf(sums)))
	}
	return nil
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

// refuse returns an [ErrRevoked] when every way from the peer to a root leads over a revoked certificate.
func (r *revocations) refuse(chains [][]*x509.Certificate) error {
	if r == nil || len(r.byKey) == 0 {
		return nil
	}
	var taken *x509.Certificate
	for _, chain := range chains {
		c := r.revokedIn(chain)
		if c == nil {
			return nil
		}
		taken = c
	}
	if taken == nil { // no chain: whoever admits peers without one is not asking about lists
		return nil
	}
	return fmt.Errorf("%w: serial %s of %q", ErrRevoked, pemfile.Serial(taken), strings.Join(pemfile.Names(taken), " "))
}

func (r *revocations) revokedIn(chain []*x509.Certificate) *x509.Certificate {
	for i, c := range chain[:max(len(chain)-1, 0)] {
		if _, ok := r.byKey[string(chain[i+1].RawSubjectPublicKeyInfo)][string(c.SerialNumber.Bytes())]; ok {
			return c
		}
	}
	return nil
}

// oldest is when the list that was not signed anew for longest was signed; stale
// reports that one should have been replaced by now. It is enforced all the same.
func (r *revocations) oldest(now time.Time) (at time.Time, stale bool) {
	for _, l := range r.lists {
		if at.IsZero() || l.at.Before(at) {
			at = l.at
		}
		stale = stale || !l.until.IsZero() && now.After(l.until)
	}
	return at, stale
}

func (r *revocations) serials() (n int) {
	for _, s := range r.byKey {
		n += len(s)
	}
	return n
}
