// Package revocation answers what revocation lists (RFC 5280 §5) say about a chain,
// and remembers what earlier ones said:
//
//	lists := revocation.Index{}
//	err := lists.Add(list, issuer)                // verified before
//	kept, err := kept.Follow(before, lists, now)  // what lists no longer names stays
//	c := revocation.Blocking(chains, func(i revocation.Issuer, serial string) bool {
//		return lists.Names(i, serial) || kept.Names(i, serial)
//	})
//
// A certificate that a list once named stays refused until it has ended, because an
// authority that lost its record signs a newer list with fewer entries. An entry does
// not say when its certificate ends. The lists of our authority say it in an extension
// ([EncodeEnds]); for a list without it, the end is that of the issuer.
package revocation

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

// Issuer names a CA by its key, because a CA that was certified again over the same
// key has the same list: the SHA-256 of its SubjectPublicKeyInfo.
type Issuer [sha256.Size]byte

// IssuerOf names the CA that c is the certificate of.
func IssuerOf(c *x509.Certificate) Issuer { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Edition tells the lists of one issuer apart by age.
type Edition struct {
	ThisUpdate time.Time
	Number     *big.Int // nil if the list has none
}

// EditionOf returns the edition of a list.
func EditionOf(list *x509.RevocationList) Edition {
	return Edition{list.ThisUpdate, list.Number}
}

// Supersedes reports whether a list of the edition e replaces one of the edition o.
// Times have whole seconds; the number tells two of one second apart (RFC 5280 §5.2.3).
func (e Edition) Supersedes(o Edition) bool {
	if !e.ThisUpdate.Equal(o.ThisUpdate) || e.Number == nil || o.Number == nil {
		return e.ThisUpdate.After(o.ThisUpdate)
	}
	return e.Number.Cmp(o.Number) > 0
}

// Index holds what the lists of several issuers name: by issuer and serial number
// (big endian), the last second, in Unix time, that the certificate may be valid in.
type Index map[Issuer]map[string]int64

// Add adds the entries of a list whose signature issuer has verified. It refuses a
// second list of the same issuer, an entry with a critical extension, and an extension
// [OIDEnds] that does not fit the entries.
func (x Index) Add(list *x509.RevocationList, issuer *x509.Certificate) error {
	key := IssuerOf(issuer)
	if x[key] != nil {
		return fmt.Errorf("there are two revocation lists of %q", list.Issuer.CommonName)
	}
	ends, err := endsOf(list)
	if err != nil {
		return fmt.Errorf("the revocation list of %q: %w", list.Issuer.CommonName, err)
	}
	entries := make(map[string]int64, len(list.RevokedCertificateEntries))
	for i, e := range list.RevokedCertificateEntries {
		for _, extension := range e.Extensions {
			if extension.Critical { // a certificateIssuer would make the entry one of another CA (RFC 5280 §5.3.3)
				return fmt.Errorf("the revocation list of %q has an entry with the critical extension %s, which is not supported", list.Issuer.CommonName, extension.Id)
			}
		}
		end := issuer.NotAfter.Unix()
		if ends != nil {
			end = ends[i]
		}
		serial := string(e.SerialNumber.Bytes())
		entries[serial] = max(entries[serial], end)
	}
	x[key] = entries
	return nil
}

// Names reports whether the list of an issuer has the serial.
func (x Index) Names(issuer Issuer, serial string) bool {
	_, ok := x[issuer][serial]
	return ok
}

// Len returns how many certificates the lists name.
func (x Index) Len() (n int) {
	for _, entries := range x {
		n += len(entries)
	}
	return n
}

// Blocking returns a revoked certificate if every chain contains one. It returns nil
// if one chain contains none, or if there is no chain.
func Blocking(chains [][]*x509.Certificate, revoked func(issuer Issuer, serial string) bool) *x509.Certificate {
	var found *x509.Certificate
	for _, chain := range chains {
		c := revokedIn(chain, revoked)
		if c == nil {
			return nil
		}
		found = c
	}
	return found
}

func revokedIn(chain []*x509.Certificate, revoked func(Issuer, string) bool) *x509.Certificate {
	for i, c := range chain[:max(len(chain)-1, 0)] {
		if revoked(IssuerOf(chain[i+1]), string(c.SerialNumber.Bytes())) {
			return c
		}
	}
	return nil
}

// HalfOver reports whether a list is past the middle between its two dates. An
// authority that still signs lists has replaced it by then.
func HalfOver(thisUpdate, nextUpdate, now time.Time) bool {
	return !nextUpdate.IsZero() && now.After(thisUpdate.Add(nextUpdate.Sub(thisUpdate)/2))
}
