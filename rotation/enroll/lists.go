package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
)

// signedList is a revocation list with the certificate of the CA that signed it. It is only
// made by newSignedList, so the signature is verified.
type signedList struct {
	*x509.RevocationList
	issuer *x509.Certificate
}

// lists has at most one list per issuer. It is not changed once made.
type lists []signedList

const typeCRL = "X509 CRL" // RFC 7468 §7

// withoutUnread drops from a list what no code here reads: with hundreds of thousands
// of entries that is half of its memory. Critical extensions of an entry stay, because
// they are a reason to refuse the list (RFC 5280 §5.3).
func withoutUnread(l *x509.RevocationList) *x509.RevocationList {
	l.RevokedCertificates = nil //nolint:staticcheck // SA1019: the parser fills it as well
	for i := range l.RevokedCertificateEntries {
		e := &l.RevokedCertificateEntries[i]
		if !slices.ContainsFunc(e.Extensions, func(x pkix.Extension) bool { return x.Critical }) {
			e.Extensions = nil
		}
	}
	return l
}

// newSignedList verifies a list. The issuer must be a CA that may sign lists (RFC 5280
// §6.3.3).
func newSignedList(l *x509.RevocationList, issuer *x509.Certificate) (signedList, error) {
	if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		return signedList{}, errors.New("the revoked list is of another issuer")
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return signedList{}, fmt.Errorf("verifying the revoked list of %q: %w", oneLine(issuer.Subject.CommonName), err)
	}
	return signedList{l, issuer}, nil
}

// sameIssuer compares issuers by name and key, because an issuer may have several
// certificates.
func (l signedList) sameIssuer(o signedList) bool {
	return revocation.IssuerOf(l.issuer) == revocation.IssuerOf(o.issuer)
}

// merge returns the newer list of each issuer: a replica of the authority may answer with
// an older list, or without one.
func merge(have, got lists) lists {
	out := slices.Clone(have)
	for _, g := range got {
		i := slices.IndexFunc(out, g.sameIssuer)
		switch {
		case i < 0:
			out = append(out, g)
		case revocation.EditionOf(g.RevocationList).Supersedes(revocation.EditionOf(out[i].RevocationList)):
			out[i] = g
		}
	}
	return out
}

// index returns the serial numbers of all lists, by issuer.
func (ls lists) index() (revocation.Index, error) {
	x := revocation.Index{}
	for _, l := range ls {
		if err := x.Add(l.RevocationList, l.issuer); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// hasRevoked reports whether the list of the issuer has the serial number. It compares all
// entries. For the longest list that takes milliseconds, once for each connection to the
// authority; an index would take tens of megabytes all the time.
func (ls lists) hasRevoked(issuer revocation.Issuer, serial *big.Int) bool {
	for _, l := range ls {
		if revocation.IssuerOf(l.issuer) == issuer {
			return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
		}
	}
	return false
}

func (ls lists) equal(o lists) bool {
	return slices.EqualFunc(ls, o, func(a, b signedList) bool { return bytes.Equal(a.Raw, b.Raw) })
}

// stillVerifiable leaves out lists whose issuer has expired, or is neither in the chain of
// i nor under its roots: no peer has a certificate of such an issuer.
func (ls lists) stillVerifiable(i *identity, now time.Time) lists {
	var out lists
	for _, l := range ls {
		if now.Before(l.issuer.NotAfter) && (slices.ContainsFunc(i.chain[1:], l.issuer.Equal) || chainsToRoots(l.issuer, i.roots)) {
			out = append(out, l)
		}
	}
	return out
}

// chainsToRoots reports whether the issuer is under the roots. It verifies for the begin of
// the issuer's validity, so that a wrong clock here does not drop a list.
func chainsToRoots(issuer *x509.Certificate, roots []*x509.Certificate) bool {
	opts := x509.VerifyOptions{Roots: certs.Pool(roots...), CurrentTime: issuer.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	_, err := issuer.Verify(opts)
	return err == nil
}

// issuers returns the issuers that are neither in the chain nor in the bundle of i, so
// that a reader of crl.pem needs them.
func (ls lists) issuers(i *identity) []*x509.Certificate {
	var out []*x509.Certificate
	for _, l := range ls {
		if !slices.ContainsFunc(i.chain[1:], l.issuer.Equal) && !slices.ContainsFunc(i.roots, l.issuer.Equal) {
			out = append(out, l.issuer)
		}
	}
	return out
}

func (ls lists) raw() []*x509.RevocationList {
	var out []*x509.RevocationList
	for _, l := range ls {
		out = append(out, l.RevocationList)
	}
	return out
}

// serials returns the number of entries of all lists.
func (ls lists) serials() (n int) {
	for _, l := range ls {
		n += len(l.RevokedCertificateEntries)
	}
	return n
}

// oldest returns the earliest ThisUpdate of the lists of intermediates; zero without them. The
// list of a root is signed anew only when it changes, so its age says nothing.
func (ls lists) oldest() (at time.Time) {
	for _, l := range ls {
		if bytes.Equal(l.issuer.RawIssuer, l.issuer.RawSubject) {
			continue
		}
		if at.IsZero() || l.ThisUpdate.Before(at) {
			at = l.ThisUpdate
		}
	}
	return at
}

// until returns the earliest NextUpdate of the lists; zero if no list has one.
func (ls lists) until() (at time.Time) {
	for _, l := range ls {
		if at.IsZero() || !l.NextUpdate.IsZero() && l.NextUpdate.Before(at) {
			at = l.NextUpdate
		}
	}
	return at
}

// encode returns the content of crl.pem: all lists, then their issuers (see issuers).
func (ls lists) encode(i *identity) []byte {
	return append(pemfile.EncodeRevocationLists(ls.raw()), pemfile.EncodeCertificates(ls.issuers(i))...)
}

// parseLists reads crl.pem as strictly as [pemfile.RevocationLists] does. Every list must
// verify by one of the certificates in the file or by a CA certificate that i has, and
// no issuer may have two. Without any list, as in an empty file, it returns nil.
func parseLists(data []byte, i *identity) (lists, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	revoked, issuers, err := pemfile.RevocationLists(data)
	if err != nil && !errors.Is(err, pemfile.ErrNoBlock) {
		return nil, fmt.Errorf("parsing the revoked lists: %w", err)
	}
	candidates := slices.Concat(i.chain[1:], i.roots, issuers)
	var out lists
	for _, l := range revoked {
		signed, err := signedBy(withoutUnread(l), candidates)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, signed.sameIssuer) {
			return nil, errors.New("two revoked lists of one issuer")
		}
		out = append(out, signed)
	}
	return out, nil
}

// signedBy verifies a list by the first of the candidates that fits.
func signedBy(l *x509.RevocationList, candidates []*x509.Certificate) (signedList, error) {
	for _, c := range candidates {
		if signed, err := newSignedList(l, c); err == nil {
			return signed, nil
		}
	}
	return signedList{}, fmt.Errorf("the revoked list of %q is signed by no known issuer", oneLine(l.Issuer.CommonName))
}

// isUnsupported reports whether the authority does not have the path of the request, like a
// stock step-ca.
func isUnsupported(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Status == http.StatusNotFound || e.Status == http.StatusNotImplemented)
}
