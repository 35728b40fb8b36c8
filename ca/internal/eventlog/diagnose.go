package eventlog

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
)

// A leaf that differs from its rows says only that something was changed. But most values
// are stored twice: the event repeats columns of the certificate, and the row of a
// certificate repeats what its DER says. If replacing one value by its copy makes the leaf
// fit again, this value is what was changed.

// missingFinding returns the finding for a row that was deleted.
func (r *logRow) missingFinding() translog.Finding {
	if r.event == nil {
		return r.newFinding(FaultDeleted, fmt.Sprintf("event %d is gone", r.id))
	}
	what := "certificate"
	if r.event.Kind == kinds.Revoked {
		what = "revocation"
	}
	return r.newFinding(FaultDeleted, "the "+what+" is gone")
}

// repair replaces one value of a row by its copy.
type repair struct {
	field string     // name of the value, for the finding
	at    *time.Time // the value as it is now, if it is a time; nil for others
	was   time.Time  // its copy, if it is a time
	do    func(*logRow)
}

// diagnose returns the finding for a row that differs from its leaf. early says that the
// time of the row is before that of an earlier entry by more than clockStep.
func (r *logRow) diagnose(early bool) translog.Finding {
	for _, fix := range r.repairs() {
		again := r.clone()
		fix.do(&again)
		if e, ok := again.recomputedLeaf(); !ok || e != r.leaf {
			continue
		}
		if fix.at == nil {
			return r.newFinding(FaultAltered, fix.field+" was changed")
		}
		fault := FaultAltered
		if fix.at.Before(fix.was) && (strings.HasSuffix(fix.field, "_at") || strings.HasSuffix(fix.field, " at")) {
			fault = FaultBackdated
		}
		return r.newFinding(fault, fmt.Sprintf("%s was %s", fix.field, fix.was.UTC().Format(time.RFC3339)))
	}
	return r.unexplainedFinding(early)
}

// unexplainedFinding returns the finding if no single repair makes the leaf fit. It says what
// the row itself contradicts: the DER, the signature of the issuer, the begin of validity.
func (r *logRow) unexplainedFinding(early bool) translog.Finding {
	if r.cert != nil {
		leaf, err := x509.ParseCertificate(r.cert.DER)
		if err != nil || leaf.SerialNumber.String() != r.cert.Serial {
			return r.newFinding(FaultAltered, "der was changed: it is not this certificate")
		}
		if said := record.NewCertificate([]*x509.Certificate{leaf}, r.cert.IssuedAt); said.KeyHash != r.cert.KeyHash || !said.NotAfter.Equal(r.cert.NotAfter) {
			return r.newFinding(FaultAltered, "der was changed: it is not what the row says")
		}
		chain, err := x509.ParseCertificates(r.cert.Chain)
		if err != nil || len(chain) > 0 && leaf.CheckSignatureFrom(chain[0]) != nil {
			return r.newFinding(FaultAltered, "der or chain was changed: its issuer did not sign it")
		}
		if r.cert.IssuedAt.Before(leaf.NotBefore) && leaf.NotBefore.Before(time.Now()) {
			return r.newFinding(FaultBackdated, "issued_at and the event's time are before the certificate begins")
		}
	}
	if early {
		return r.newFinding(FaultBackdated, "it is not what was logged, and its time is before that of an earlier entry")
	}
	return r.newFinding(FaultAltered, "it is not what was logged")
}

// clone copies the row and all that a repair may change.
func (r *logRow) clone() logRow {
	out := *r
	e := *r.event
	out.event = &e
	if r.cert != nil {
		c := *r.cert
		out.cert = &c
	}
	if r.revoke != nil {
		v := *r.revoke
		out.revoke = &v
	}
	return out
}

// recomputedLeaf returns the leaf that the rows have now. ok is false for events whose leaf
// needs a query, such as that of a prune: no repair applies to these.
func (r *logRow) recomputedLeaf() (hash [32]byte, ok bool) {
	switch {
	case r.cert != nil:
		return toEntry(*r.event, CertificateDigest(r.cert)).Leaf(), true
	case r.revoke != nil:
		return toEntry(*r.event, r.revoke.Digest()).Leaf(), true
	}
	return hash, false
}

// repairs returns a repair for each value that is stored twice, in both directions.
func (r *logRow) repairs() []repair {
	switch {
	case r.cert != nil:
		return slices.Concat(r.eventRepairs(), r.certRepairs())
	case r.revoke != nil:
		e, v := r.event, r.revoke
		return []repair{
			{"revoked_at", &v.RevokedAt, e.At, func(r *logRow) { r.revoke.RevokedAt = r.event.At }},
			{"the event's at", &e.At, v.RevokedAt, func(r *logRow) { r.event.At = r.revoke.RevokedAt }},
			{field: "note", do: func(r *logRow) { r.revoke.Note = r.event.Detail }},
			{field: "the event's detail", do: func(r *logRow) { r.event.Detail = r.revoke.Note }},
			{field: "caller", do: func(r *logRow) { r.revoke.Caller = r.event.Caller }},
			{field: "the event's caller", do: func(r *logRow) { r.event.Caller = r.revoke.Caller }},
		}
	}
	return nil
}

// eventRepairs are for the values that certificate and event both have.
func (r *logRow) eventRepairs() []repair {
	e, c := r.event, r.cert
	return []repair{
		{"issued_at", &c.IssuedAt, e.At, func(r *logRow) { r.cert.IssuedAt = r.event.At }},
		{"the event's at", &e.At, c.IssuedAt, func(r *logRow) { r.event.At = r.cert.IssuedAt }},
		{field: "service", do: func(r *logRow) { r.cert.Service = r.event.Service }},
		{field: "the event's service", do: func(r *logRow) { r.event.Service = r.cert.Service }},
		{field: "kind", do: func(r *logRow) { r.cert.Kind = r.event.Kind }},
		{field: "the event's kind", do: func(r *logRow) { r.event.Kind = r.cert.Kind }},
		{field: "caller", do: func(r *logRow) { r.cert.Caller = r.event.Caller }},
		{field: "the event's caller", do: func(r *logRow) { r.event.Caller = r.cert.Caller }},
		{field: "lineage", do: func(r *logRow) { r.cert.Lineage = r.cert.Serial }},
	}
}

// certRepairs are for the columns of a certificate that its DER has as well.
func (r *logRow) certRepairs() []repair {
	leaf, err := x509.ParseCertificate(r.cert.DER)
	if err != nil {
		return nil
	}
	said := record.NewCertificate([]*x509.Certificate{leaf}, r.cert.IssuedAt)
	return []repair{
		{"not_after", &r.cert.NotAfter, said.NotAfter, func(r *logRow) { r.cert.NotAfter = said.NotAfter }},
		{"not_before", &r.cert.NotBefore, said.NotBefore, func(r *logRow) { r.cert.NotBefore = said.NotBefore }},
		{field: "names", do: func(r *logRow) { r.cert.Names = certs.Names(leaf) }},
		{field: "key_hash", do: func(r *logRow) { r.cert.KeyHash = said.KeyHash }},
		{field: "issuer", do: func(r *logRow) { r.cert.Issuer = said.Issuer }},
		// This end is in no DER. Most certificates have none, and most others end with it, so
		// these two guesses are tried.
		{field: "proof_until", do: func(r *logRow) { r.cert.ProofUntil = time.Time{} }},
		{"proof_until", &r.cert.ProofUntil, said.NotAfter, func(r *logRow) { r.cert.ProofUntil = said.NotAfter }},
	}
}
