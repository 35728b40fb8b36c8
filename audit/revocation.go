package audit

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// addListUses remembers which lists a leaf is judged by: that of its issuer, and beside that
// those of the authorities above it, which nginx and PostgreSQL ask for too.
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

// useKey is one for all copies of a list at one place.
func useKey(place string, signature []byte) string { return place + "\x00" + string(signature) }

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

// unused judges a list by the leaves that have it, once all are known. A file may have
// the lists of all authorities; what matters is that the leaves have one that is theirs.
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

// uncovered judges leaves where lists were given, so that somebody checks revocation. What the
// record knows is judged by that.
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

// revoked judges by the record, and by the lists that were given.
func revoked(v *inventory) func(*Row) (Severity, string) {
	return func(r *Row) (Severity, string) {
		if !r.parsed() || r.Kind == kindRecord {
			return severityOK, ""
		}
		if v.recorded[r.Cert.ID()].revoked {
			return Crit, "the record says that it is revoked"
		}
		for _, l := range slices.Concat(v.lists, r.Lists) {
			if severity, text := checkRevoked(l, r); severity != severityOK {
				return severity, text
			}
		}
		return severityOK, ""
	}
}

func checkRevoked(l *cert.List, r *Row) (Severity, string) {
	at, listed := l.RevokedAt(r.Cert.Serial)
	if !listed || !bytes.Equal(l.Issuer, r.Cert.RawIssuer) {
		return severityOK, ""
	}
	issuer := r.issuer()
	if l.Found && (issuer == nil || !l.SignedBy(issuer)) {
		return severityOK, "" // the row of the list says so
	}
	if issuer != nil && !l.SignedBy(issuer) {
		return Warn, "the list in " + l.Name + " says that it is revoked, and " + issuer.Name + " has not signed that list"
	}
	return Crit, fmt.Sprintf("revoked %s ago, says the list in %s", humantime.Short(humantime.Between(at, r.Judged)), l.Name)
}
