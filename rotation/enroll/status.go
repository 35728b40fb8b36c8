package enroll

import (
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/errtext"
)

// Status is the state of a [Source], for operators. It has nothing secret. The zero value
// means that there was no certificate yet.
type Status struct {
	Serial      string    // 0x and hex, of the current certificate
	NotAfter    time.Time // end of the current certificate
	NextRenewal time.Time // when the next attempt is planned, a retry or a renewal
	NextTrust   time.Time // when the trust bundle is fetched next
	// Failures since the last success, and the last error, of each kind; 0 and "" after a
	// success.
	RenewalFailures int
	RenewalError    string
	TrustFailures   int
	TrustError      string
	RevokedFailures int
	RevokedError    string
	// RevokedLists is the number of lists in effect, RevokedSerials that of the
	// certificates on them, and RevokedKept that of the certificates which only earlier
	// lists named and which stay refused until they have ended. RevokedAt is when the
	// oldest list of an intermediate was signed, and RevokedUntil the earliest nextUpdate.
	RevokedLists, RevokedSerials, RevokedKept int
	RevokedAt, RevokedUntil                   time.Time
	// Watching is whether the authority tells of changes at once, by a request that it holds.
	// Otherwise it is asked from time to time. WatchingSince is when that has begun, zero
	// before the first attempt. WatchAnswered is when such a request was answered last;
	// nothing changed in the minutes since. WatchFailures are those in a row.
	Watching                     bool
	WatchingSince, WatchAnswered time.Time
	WatchFailures                int
	WatchError                   string
	// OrderedRenewal is the id of the last order to renew, 0 if there was none.
	OrderedRenewal int64
	// Skew is how far the authority's clock is ahead of the clock here. It is 0 below 2 s,
	// and before the first answer.
	Skew time.Duration
}

// Status returns the present state; it never waits.
func (s *Source) Status() Status {
	if st := s.status.Load(); st != nil {
		return *st
	}
	return Status{}
}

// Check is for readiness probes. It fails if there is no valid certificate, and if a
// revocation list should have been replaced by now, because revoked peers may be admitted
// then.
func (s *Source) Check() error {
	st, now := s.Status(), s.wallNow()
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

// RevokedError returns why the last refresh of the revocation lists failed, nil if it did
// not. Package rotation shows it when the lists are out of date.
func (s *Source) RevokedError() error {
	if why := s.Status().RevokedError; why != "" {
		return errors.New(why)
	}
	return nil
}

// NextRenewal returns when the next attempt to get a certificate is planned. Package
// rotation shows it in its status.
func (s *Source) NextRenewal() time.Time { return s.Status().NextRenewal }

// report publishes the state. It is called after each event, so that Status never waits.
func (a *agent) report() {
	st := &Status{
		NextRenewal: a.leaf.at, RenewalFailures: a.leaf.failures, RenewalError: errtext.Of(a.leaf.err),
		NextTrust: a.trust.at, TrustFailures: a.trust.failures, TrustError: errtext.Of(a.trust.err),
		RevokedFailures: a.lists.failures, RevokedError: errtext.Of(a.lists.err), Skew: time.Duration(a.skew.Load()),
		Watching: a.watch.mode == modeWatch, WatchingSince: a.watch.since, WatchAnswered: a.watch.answered,
		WatchFailures: a.watch.failures, WatchError: errtext.Of(a.watch.err), OrderedRenewal: a.watch.obeyed.id,
	}
	if a.cur != nil {
		st.Serial, st.NotAfter = certs.Serial(a.cur.leaf()), a.cur.leaf().NotAfter
		st.RevokedLists, st.RevokedSerials, st.RevokedKept = len(a.cur.lists), a.cur.lists.serials(), a.cur.kept.Len()
		st.RevokedAt, st.RevokedUntil = a.cur.lists.oldest(), a.cur.lists.until()
	}
	a.status.Store(st)
}
