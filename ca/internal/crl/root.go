package crl

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/revocation"
)

// The list of a root names the intermediates that must not be trusted any more. It can only
// be made while the key of the root is available, so it is valid as long as the root, and
// lies in the state directory. Most of these lists are empty, and are needed all the same:
// programs such as nginx make OpenSSL check every certificate of a chain once they have a
// list (X509_V_FLAG_CRL_CHECK_ALL), and without a list of the root they refuse every chain.

// Revoked is an intermediate for the list of its root.
type Revoked struct {
	Serial *big.Int
	At     time.Time // of the revocation
	Reason int       // RFC 5280 §5.3.1
}

// RootLists are the lists of roots, by the subject key ids of the roots in hex.
type RootLists map[string]*List

// SignRoot signs the next list of a root, whose list before is in a state directory, and
// writes nothing. The list has the entries of the one before, and those of revoked: nothing
// that a list has named comes off it, so a caller that has nothing to add passes nil. Its
// number is larger (RFC 5280 §5.2.3). Errors are those of a damaged list and of signing.
func SignRoot(dir string, root cacert.Issuer, revoked []Revoked) (*List, error) {
	before, err := readRoot(dir, root.Cert)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	h := head{number: big.NewInt(now.UnixMicro()), thisUpdate: now, nextUpdate: root.Cert.NotAfter}
	if before != nil {
		revoked = before.join(revoked)
		h.follow(before.parsed)
	}
	listed, err := rootEntries(root.Cert, revoked)
	if err != nil {
		return nil, err
	}
	der, err := sign(root, h, listed)
	if err != nil {
		return nil, err
	}
	return parseRoot(der, root.Cert)
}

// StoreRoot writes the list of a root into a state directory, where the next start or reload
// of the authority finds it. A crash leaves the old list or the new one.
func StoreRoot(dir string, root *x509.Certificate, list *List) error {
	if err := durable.WriteFile(statedir.Dir{Path: dir}.RootListPath(certs.Fingerprint(root)), list.PEM(), durable.Public); err != nil {
		return fmt.Errorf("writing the root's list: %w", err)
	}
	return nil
}

// WriteRoot is [SignRoot] followed by [StoreRoot], where no record has to know of the list
// first.
func WriteRoot(dir string, root cacert.Issuer, revoked []Revoked) error {
	list, err := SignRoot(dir, root, revoked)
	if err != nil {
		return err
	}
	return StoreRoot(dir, root.Cert, list)
}

// ReadSigned reads the next list of a root from the holder of the root, in PEM, and writes
// nothing. It must be signed by the root, be current, name the intermediate and all that the list
// in the state directory names, and have a larger number than that one.
func ReadSigned(dir string, text []byte, root, intermediate *x509.Certificate) (*List, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != typeCRL || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("reading the signed list: want one revocation list in PEM")
	}
	list, err := parseRoot(block.Bytes, root)
	if err != nil {
		return nil, fmt.Errorf("reading the signed list: it is not one of %q", root.Subject.CommonName)
	}
	before, err := readRoot(dir, root)
	if err != nil {
		return nil, err
	}
	names := func(serial *big.Int) bool {
		return slices.ContainsFunc(list.parsed.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
	}
	switch now := time.Now(); {
	case slices.ContainsFunc(list.parsed.Extensions, func(e pkix.Extension) bool { return e.Critical }): // RFC 5280 §5.2.4, §5.2.5
		return nil, errors.New("reading the signed list: it is a part of a list only, or has another critical extension")
	case list.parsed.Number == nil || now.After(list.parsed.NextUpdate) || now.Before(list.parsed.ThisUpdate):
		return nil, errors.New("reading the signed list: it has no number, or is not of today")
	case !names(intermediate.SerialNumber):
		return nil, fmt.Errorf("reading the signed list: it does not name %q", intermediate.Subject.CommonName)
	case before == nil:
		return list, nil
	case before.parsed.Number != nil && list.parsed.Number.Cmp(before.parsed.Number) <= 0:
		return nil, errors.New("reading the signed list: its number is not larger than that of the list before")
	}
	for _, e := range before.parsed.RevokedCertificateEntries {
		if !names(e.SerialNumber) {
			return nil, fmt.Errorf("reading the signed list: certificate %x is no longer on it", e.SerialNumber)
		}
	}
	return list, nil
}

// parseRoot verifies and parses the list of a root.
func parseRoot(der []byte, root *x509.Certificate) (*List, error) {
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		err = list.CheckSignatureFrom(root)
	}
	if err != nil {
		return nil, err
	}
	return &List{
		der: der, sum: sha256.Sum256(der), entries: len(list.RevokedCertificateEntries),
		parsed: list, issuer: revocation.IssuerOf(root),
	}, nil
}

// follow makes h newer than the list before, also if the clock was set back: peers refuse a
// list that is older than the one they have.
func (h *head) follow(before *x509.RevocationList) {
	if h.thisUpdate.Before(before.ThisUpdate) {
		h.thisUpdate = before.ThisUpdate
	}
	if before.Number != nil && h.number.Cmp(before.Number) <= 0 {
		h.number = new(big.Int).Add(before.Number, big.NewInt(1))
	}
}

// join returns the entries of the list of a root, and then those of more that it lacks.
func (c *List) join(more []Revoked) []Revoked {
	var all []Revoked
	for _, e := range c.parsed.RevokedCertificateEntries {
		all = append(all, Revoked{e.SerialNumber, e.RevocationTime, e.ReasonCode})
	}
	for _, r := range more {
		if !slices.ContainsFunc(all, func(o Revoked) bool { return o.Serial.Cmp(r.Serial) == 0 }) {
			all = append(all, r)
		}
	}
	return all
}

// rootEntries encodes the entries of the list of a root. Each counts as long as the root: an
// intermediate ends no later, and the few entries need not be dropped before.
func rootEntries(root *x509.Certificate, revoked []Revoked) (*entries, error) {
	listed := new(entries)
	for _, r := range revoked {
		if err := listed.add(record.RevokedEntry{Serial: r.Serial.String(), RevokedAt: r.At, Reason: r.Reason, NotAfter: root.NotAfter}); err != nil {
			return nil, err
		}
	}
	return listed, nil
}

// ReadRoots reads the lists of roots from a state directory. A root that was made before
// there were such lists has none until its key is at hand again. A list that is damaged, or
// is not that of its root, is an error.
func ReadRoots(dir string, roots []*x509.Certificate) (RootLists, error) {
	lists := make(RootLists, len(roots))
	for _, root := range roots {
		list, err := readRoot(dir, root)
		if err != nil {
			return nil, err
		}
		if list != nil {
			lists[cacert.KeyID(root)] = list
		}
	}
	return lists, nil
}

// readRoot returns the list of one root, nil if there is none.
func readRoot(dir string, root *x509.Certificate) (*List, error) {
	path := statedir.Dir{Path: dir}.RootListPath(certs.Fingerprint(root))
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // nil is no list
	}
	if err != nil {
		return nil, fmt.Errorf("reading the root's list: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != typeCRL {
		return nil, fmt.Errorf("reading the root's list %s: it is none", path)
	}
	list, err := parseRoot(block.Bytes, root)
	if err != nil {
		return nil, fmt.Errorf("reading the root's list %s: it is not that of %q", path, root.Subject.CommonName)
	}
	return list, nil
}

// Of returns the list of a root, nil if there is none.
func (l RootLists) Of(root *x509.Certificate) *List { return l[cacert.KeyID(root)] }

// RevokedAt returns when an intermediate was revoked, by the list of its root; zero if no
// list names it.
func (l RootLists) RevokedAt(intermediate *x509.Certificate) time.Time {
	for _, list := range l {
		if i := list.find(intermediate.SerialNumber); i >= 0 && bytes.Equal(list.parsed.RawIssuer, intermediate.RawIssuer) {
			return list.parsed.RevokedCertificateEntries[i].RevocationTime
		}
	}
	return time.Time{}
}

// find returns the index of a serial number in the list of a root, -1 if it is not there.
func (c *List) find(serial *big.Int) int {
	return slices.IndexFunc(c.parsed.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
}

// Blocking returns a revoked intermediate if each of the verified chains has one. A chain is
// leaf first and root last. Blocking returns nil if one chain has no revoked intermediate, and
// if there is no chain.
func (l RootLists) Blocking(chains [][]*x509.Certificate) *x509.Certificate {
	return revocation.Blocking(chains, func(issuer revocation.Issuer, serial string) bool {
		for _, list := range l {
			if list.issuer == issuer && list.find(new(big.Int).SetBytes([]byte(serial))) >= 0 {
				return true
			}
		}
		return false
	})
}
