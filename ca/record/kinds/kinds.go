// Package kinds has the kinds of events, one word each. A certificate has the kind of
// the event that tells how it came into the record. The words are in the database, in
// the log and in the output of commands: none may change.
package kinds

import "slices"

// Kinds of events that tell of a certificate. They are the kinds of certificates, too.
const (
	Issued     = "issued"
	Renewed    = "renewed"
	Rekeyed    = "rekeyed"
	SelfIssued = "own"     // the authority's own server certificate
	Entered    = "entered" // not issued by this record: entered to be revoked
)

// Kinds of all other events.
const (
	Revoked    = "revoked"
	Refused    = "refused"
	TokenMade  = "token"    // a service asked for an enrolment token; the event's service is whom the token is for
	EABChanged = "acme-key" // an external account key was made, used by an account or revoked; the detail says which, and never the secret
	Pruned     = "pruned"   // rows were removed
	Restored   = "restored" // the record comes from a backup
	Migrated   = "migrated" // the record comes from the other kind of database
	Accepted   = "accepted" // an operator accepted that entries of the log are lost

	TrustChanged   = "trust"         // a root or an intermediate was added, activated, removed or revoked; the detail says which step, and whom it was accepted to cut off
	KeyChanged     = "enrolment-key" // a provisioner got another enrolment key; the detail has the ids of both
	RenewalOrdered = "renewal"       // certificates are to be renewed before it is their time; the detail says which and by when
)

// All returns all kinds of events, those of certificates first.
func All() []string {
	return append(ofCertificates(), Revoked, Refused, TokenMade, EABChanged, Pruned, Restored, Migrated, Accepted, KeyChanged, TrustChanged, RenewalOrdered)
}

// OfCertificate reports whether events of a kind tell of a certificate.
func OfCertificate(kind string) bool { return slices.Contains(ofCertificates(), kind) }

func ofCertificates() []string { return []string{Issued, Renewed, Rekeyed, SelfIssued, Entered} }
