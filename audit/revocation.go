package audit

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// addListUses remembers for each list at hand whether it judges a leaf. A leaf is judged by
// the list of its issuer. If it has that, the lists of the authorities above are used too,
// because nginx and PostgreSQL require them.
func (v *inventory) addListUses(r *Row) {
	lists := slices.Concat(v.lists, r.Lists)
	if len(lists) == 0 || !r.Leaf() || r.Kind == kindRecord {
		return
	}
	issuers := [][]byte{r.Cert.RawIssuer}
	if r.ruled != nil && len(r.ruled.paths) > 0 {
		for _, c := range r.ruled.paths[0][1:] {
			issuers = append(issuers, c.RawIssuer)
		}
	}
	covered := slices.ContainsFunc(lists, func(l *cert.List) bool { return l.Whole && bytes.Equal(l.Issuer, r.Cert.RawIssuer) })
	for _, l := range lists {
		use := v.useOf(l)
		use.lacked = use.lacked || !covered
		use.used = use.used || covered && slices.ContainsFunc(issuers, func(name []byte) bool { return bytes.Equal(l.Issuer, name) })
	}
}

// useKey returns a key that copies of a list at one place have in common.
func useKey(place string, signature []byte) string { return place + "\x00" + string(signature) }

// useOf returns the use of a list. Equal lists of one place share it.
func (v *inventory) useOf(l *cert.List) *listUse {
	if use := v.useOfList[l]; use != nil {
		return use
	}
	key := useKey(l.Name, l.Signature())
	if v.uses[key] == nil {
		v.uses[key] = &listUse{}
	}
	v.useOfList[l] = v.uses[key]
	return v.uses[key]
}

// unused finds a list that judges no leaf although a leaf beside it needs a list. It is
// called when all leaves are known. A superfluous list is no finding, because a file may
// hold the lists of all authorities.
func (v *inventory) unused(r *Row) (flaw, bool) {
	use := v.uses[useKey(r.Place, r.Document.List.Signature)]
	if use == nil || use.used || !use.lacked {
		return flaw{}, false
	}
	where := "beside it"
	if r.given {
		where = "that was found"
	}
	return flaw{"crl-unused", Warn, "no certificate " + where + " is judged by it: it is not of their issuers, or only a part of such a list"}, true
}

// uncovered finds leaves without a list of their issuer. It does so only if lists were
// given, because then somebody checks revocation. Leaves in the record are judged by it.
func uncovered(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if len(v.lists) == 0 || !r.Leaf() || r.Kind == kindRecord {
			return severityOK, ""
		}
		if _, known := v.recorded[r.Cert.ID()]; known {
			return severityOK, ""
		}
		for _, l := range slices.Concat(v.lists, r.Lists) {
			if !l.Whole || !bytes.Equal(l.Issuer, r.Cert.RawIssuer) {
				continue
			}
			if issuer := r.issuer(); issuer == nil || l.SignedBy(issuer) {
				return severityOK, ""
			}
		}
		return Warn, "no revocation list says whether it is revoked: none is by its issuer " + r.Cert.IssuerName
	}
}

// revoked finds certificates that the record or a list names as revoked, and those with an
// issuer that a list names: peers refuse the whole chain.
func revoked(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if !r.parsed() || r.Kind == kindRecord {
			return severityOK, ""
		}
		if v.recorded[r.Cert.ID()].revoked {
			return Crit, "the record says that it is revoked"
		}
		lists := slices.Concat(v.lists, r.Lists)
		for c, depth := r.Cert, 0; c != nil && depth < maxIssuers && len(lists) > 0; depth++ {
			issuer := r.issuerOf(c)
			for _, l := range lists {
				severity, text := checkRevoked(l, c, issuer, r.Judged)
				if severity != severityOK && depth > 0 {
					text = "its issuer " + c.Name + ": " + text
				}
				if severity != severityOK {
					return severity, text
				}
			}
			c = issuer
		}
		return severityOK, ""
	}
}

// maxIssuers bounds the way from a leaf to its root: certificates may name each other in a
// circle.
const maxIssuers = 10

// checkRevoked compares a certificate with one list. A list that was given counts without
// the certificate of its issuer, which is nil then; a list that was found counts only with
// its signature.
func checkRevoked(l *cert.List, c, issuer *cert.Certificate, now time.Time) (Severity, string) {
	at, listed := l.RevokedAt(c.Serial)
	if !listed || !bytes.Equal(l.Issuer, c.RawIssuer) {
		return severityOK, ""
	}
	if l.Found && (issuer == nil || !l.SignedBy(issuer)) {
		return severityOK, "" // the row of the list reports its signature
	}
	if issuer != nil && !l.SignedBy(issuer) {
		return Warn, "the list in " + l.Name + " says that it is revoked, and " + issuer.Name + " has not signed that list"
	}
	return Crit, fmt.Sprintf("revoked %s ago, says the list in %s", humantime.Short(humantime.Between(at, now)), l.Name)
}
