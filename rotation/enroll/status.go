package enroll

import (
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
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
}

// Status returns the present state; it never waits.
func (s *Source) Status() Status {
	if st := s.status.Load(); st != nil {
		return *st
	}
	return Status{}
}

// report publishes the state after each event, so that Status needs no lock
// that a request to the authority could hold.
func (a *agent) report() {
	st := &Status{
		NextRenewal: a.leaf.at, RenewalFailures: a.leaf.failures, RenewalError: text(a.leaf.err),
		NextTrust: a.trust.at, TrustFailures: a.trust.failures, TrustError: text(a.trust.err),
	}
	if a.cur != nil {
		st.Serial, st.NotAfter = pemfile.Serial(a.cur.leaf()), a.cur.leaf().NotAfter
	}
	a.status.Store(st)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
