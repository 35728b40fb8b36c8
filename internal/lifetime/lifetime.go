// Package lifetime is the arithmetic of certificate lifetimes, as pure
// functions: when to back-date, when to renew, and why. The authority, the
// renewing clients and the audit all quote these, so that they agree.
package lifetime

import (
	"fmt"
	"time"
)

// Renewal is due at a uniformly random point between these shares of the
// lifetime. Earlier than the 2/3 that others use leaves a third of the life to
// get through an outage of the authority; the spread keeps a fleet that started
// together from renewing together.
const (
	RenewFrom = 0.60
	RenewTo   = 0.70
)

// MaxGrace is the longest time after its end in which a certificate may be renewed.
const MaxGrace = 72 * time.Hour

// overdueFrom is the share of the life from which a missing renewal is a failure that needs
// attention: the latest renewal begins at RenewTo, and a tenth of the life is left for its
// retries.
const overdueFrom = 0.80

// maxBackdate is how far before its issue a leaf becomes valid, at most: enough for usual clock skew.
const maxBackdate = time.Minute

// Backdate returns how long before its issue a leaf of the given life (issue to NotAfter)
// becomes valid: min(1 min, life/10).
func Backdate(life time.Duration) time.Duration {
	return max(0, min(maxBackdate, life/10))
}

// Grace returns how long after its end a certificate with this life (issue to NotAfter) can be
// renewed, unless configured otherwise: a weekend at most.
func Grace(life time.Duration) time.Duration {
	if life > MaxGrace/3 {
		return MaxGrace
	}
	return max(0, 3*life)
}

// RenewAt returns the moment to renew a certificate that was received at the given
// time. The life counts from receipt, not from NotBefore, because certificates
// are back-dated. u is a random number in [0, 1). A certificate that is already
// over is due at its receipt.
func RenewAt(received, notAfter time.Time, u float64) time.Time {
	life := notAfter.Sub(received)
	if life <= 0 {
		return received
	}
	share := RenewFrom + u*(RenewTo-RenewFrom)
	return received.Add(time.Duration(float64(life) * share).Round(time.Millisecond))
}

// IssuedAt returns the moment of issue of a certificate with these dates, if it was
// back-dated by [Backdate]. For others it is late by a minute or an eleventh of
// the life at most.
func IssuedAt(notBefore, notAfter time.Time) time.Time {
	valid := notAfter.Sub(notBefore)
	// With a life of L that is L + min(1 min, L/10), so the second case is valid/11.
	return notBefore.Add(max(0, min(maxBackdate, valid/11)))
}

// RenewalWindow returns the moments between which a certificate with these dates is renewed, at
// a random point.
func RenewalWindow(notBefore, notAfter time.Time) (from, to time.Time) {
	issued := IssuedAt(notBefore, notAfter)
	return RenewAt(issued, notAfter, 0), RenewAt(issued, notAfter, 1)
}

// OverdueAt returns the moment from which a missing renewal is a failure.
func OverdueAt(notBefore, notAfter time.Time) time.Time {
	issued := IssuedAt(notBefore, notAfter)
	return issued.Add(time.Duration(float64(notAfter.Sub(issued)) * overdueFrom))
}

// Overdue reports whether a certificate with these dates should have been
// renewed by now, whatever its random point was, and says why.
func Overdue(notBefore, notAfter, now time.Time) (reason string, overdue bool) {
	if !now.Before(notAfter) {
		return fmt.Sprintf("expired %s ago", now.Sub(notAfter).Round(time.Second)), true
	}
	if now.Before(OverdueAt(notBefore, notAfter)) {
		_, to := RenewalWindow(notBefore, notAfter)
		return fmt.Sprintf("renews by %s", to.UTC().Format(time.RFC3339)), false
	}
	return fmt.Sprintf("past %.2f of its life", overdueFrom), true
}
