package enroll

import (
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/errtext"
)

// Status is what an operator asks of a service that renews itself. It holds
// nothing secret. The zero value means that nothing was obtained so far.
type Status struct {
	Serial      string    // 0x and hex, of the current certificate
	NotAfter    time.Time // end of the current certificate
	NextRenewal time.Time // when the next attempt is planned, a retry or a renewal
	NextTrust   time.Time // when the trust bundle is looked at next
	// Failures in a row since the last success, and the last error of each kind; 0 and "" when all is well.
	RenewalFailures int
	RenewalError    string
	TrustFailures   int
	TrustError      string
	RevokedFailures int
	RevokedError    string
	// RevokedLists are the lists in effect, RevokedSerials what they hold, and
	// RevokedKept what only earlier lists named, which stays refused until it has
	// ended. RevokedAt is when the oldest list was signed, and RevokedUntil when the
	// first of them was to be replaced (nextUpdate).
	RevokedLists, RevokedSerials, RevokedKept int
	RevokedAt, RevokedUntil                   time.Time
	// Skew is how far the authority's clock is ahead of the one here: 0 below 2 s, and until it has answered.
	Skew time.Duration
}

// Status returns the present state; it never waits.
func (s *Source) Status() Status {
	if st := s.status.Load(); st != nil {
		return *st
	}
	return Status{}
}

// Check is for readiness probes: it fails when there is no certificate that is
// valid, and when a revocation list should have been replaced by now, because then
// revoked peers may be let in.
func (s *Source) Check() error {
	st, now := s.Status(), s.wall()
	switch {
	case st.Serial == "":
		return errors.New("checking enrolment: no certificate was obtained yet")
	case !now.Before(st.NotAfter):
		return fmt.Errorf("checking enrolment: the certificate expired at %s: %s", st.NotAfter.UTC().Format(time.RFC3339), st.RenewalError)
	case !st.RevokedUntil.IsZero() && now.After(st.RevokedUntil):
		return fmt.Errorf("checking enrolment: a revocation list was to be replaced by %s: %s", st.RevokedUntil.UTC().Format(time.RFC3339), st.RevokedError)
	}
	return nil
}

// RevokedError is why the revocation lists could not be refreshed last, nil if they
// were; package rotation shows it when they are out of date.
func (s *Source) RevokedError() error {
	if why := s.Status().RevokedError; why != "" {
		return errors.New(why)
	}
	return nil
}

// NextRenewal is when the next attempt at a new certificate is planned; package
// rotation shows it beside what it serves.
func (s *Source) NextRenewal() time.Time { return s.Status().NextRenewal }

// report publishes the state after each event, so that Status needs no lock
// that a request to the authority could hold.
func (a *agent) report() {
	st := &Status{
		NextRenewal: a.leaf.at, RenewalFailures: a.leaf.failures, RenewalError: errtext.Of(a.leaf.err),
		NextTrust: a.trust.at, TrustFailures: a.trust.failures, TrustError: errtext.Of(a.trust.err),
		RevokedFailures: a.lists.failures, RevokedError: errtext.Of(a.lists.err), Skew: time.Duration(a.skew.Load()),
	}
	if a.cur != nil {
		st.Serial, st.NotAfter = certs.Serial(a.cur.leaf()), a.cur.leaf().NotAfter
		st.RevokedLists, st.RevokedSerials, st.RevokedKept = len(a.cur.lists), a.cur.lists.serials(), a.cur.kept.Len()
		st.RevokedAt, st.RevokedUntil = a.cur.lists.oldest(), a.cur.lists.until()
	}
	a.status.Store(st)
}
