package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"sync"
	"time"
)

// List is a revocation list for look-ups. Goroutines may share it.
type List struct {
	Name   string // for the report
	Issuer []byte // the name in DER
	// Found is set if a walk has found the list. Nothing but its signature vouches for it.
	Found bool
	// Whole is set if the list names each revoked leaf of its issuer.
	Whole bool

	list    *x509.RevocationList // without its entries
	serials map[string]time.Time // when each was revoked, by the serial number of certs.Serial
	mu      sync.Mutex
	signed  map[ID]bool // whether an authority has signed it; remembered
}

// NewList returns a list with a name for the report.
func NewList(name string, list *x509.RevocationList) *List {
	l := &List{
		Name: name, Issuer: list.RawIssuer, Whole: isWhole(list), list: withoutEntries(list),
		serials: make(map[string]time.Time, len(list.RevokedCertificateEntries)), signed: map[ID]bool{},
	}
	for _, e := range list.RevokedCertificateEntries {
		if slices.ContainsFunc(e.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidCertificateIssuer) }) {
			break // this entry and the next ones are certificates of another issuer (RFC 5280 §5.3.3)
		}
		if e.ReasonCode != removeFromCRL {
			l.serials["0x"+e.SerialNumber.Text(16)] = e.RevocationTime
		}
	}
	return l
}

var (
	oidDeltaCRL          = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidIssuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	// Extensions that do not change which certificates a list is about.
	oidsOfLists = []asn1.ObjectIdentifier{{2, 5, 29, 18}, {2, 5, 29, 20}, {2, 5, 29, 35}, {2, 5, 29, 46}}
)

// isWhole reports whether each leaf of the issuer that the list does not name is valid. It is
// false for a delta list, for a list of other certificates or of some reasons only, and for
// one with an unknown critical extension (RFC 5280 §5.2, §6.3.3).
func isWhole(l *x509.RevocationList) bool {
	for _, e := range l.Extensions {
		switch {
		case e.Id.Equal(oidIssuingPoint):
			var scope struct {
				Point       asn1.RawValue  `asn1:"optional,tag:0"`
				Leaves      bool           `asn1:"optional,tag:1"`
				Authorities bool           `asn1:"optional,tag:2"`
				Reasons     asn1.BitString `asn1:"optional,tag:3"`
				Indirect    bool           `asn1:"optional,tag:4"`
				Attributes  bool           `asn1:"optional,tag:5"`
			}
			rest, err := asn1.Unmarshal(e.Value, &scope)
			if err != nil || len(rest) > 0 || scope.Authorities || scope.Reasons.BitLength > 0 || scope.Indirect || scope.Attributes {
				return false
			}
		case e.Id.Equal(oidDeltaCRL):
			return false
		case e.Critical && !slices.ContainsFunc(oidsOfLists, e.Id.Equal):
			return false
		}
	}
	return true
}

// removeFromCRL in a delta list takes a certificate off hold (RFC 5280 §5.3.1).
const removeFromCRL = 8

// Size returns the size of the DER, in bytes.
func (l *List) Size() int { return len(l.list.Raw) }

// Signature returns the signature. It identifies a list among those of one place.
func (l *List) Signature() []byte { return l.list.Signature }

// RevokedAt returns when a certificate of the issuer was revoked, and whether it was.
func (l *List) RevokedAt(serial string) (at time.Time, listed bool) {
	at, listed = l.serials[serial]
	return at, listed
}

// SignedBy reports whether the key of an authority has signed the list.
func (l *List) SignedBy(issuer *Certificate) bool {
	id := issuer.ID()
	l.mu.Lock()
	defer l.mu.Unlock()
	signed, asked := l.signed[id]
	if !asked {
		signed = !issuer.Key.Oversized() && l.list.CheckSignatureFrom(issuer.X509()) == nil
		l.signed[id] = signed
	}
	return signed
}

func withoutEntries(l *x509.RevocationList) *x509.RevocationList {
	out := *l
	out.RevokedCertificateEntries, out.RevokedCertificates = nil, nil //nolint:staticcheck // SA1019: it is filled all the same
	return &out
}
