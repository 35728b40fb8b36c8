package enroll

import (
	"net/http"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	// agreed is what two clocks may differ by and still count as one: the header has whole seconds.
	agreed = 2 * time.Second
	// maxSkew is how far the authority's clock moves our decisions at most.
	maxSkew = 24 * time.Hour
	// toldSkew is a difference, and a change of it, that an operator is told of.
	toldSkew = 30 * time.Second
)

// skewOf is how far ahead of ours a clock is that said date between sent and got
// by ours. The answer was dated somewhere in between, so that the true value lies
// in a span; the one of it that is closest to zero is taken.
func skewOf(date, sent, got time.Time) time.Duration {
	low, high := date.Sub(got), date.Add(time.Second).Sub(sent) // whole seconds, rounded down
	skew := time.Duration(0)
	switch {
	case low > 0:
		skew = low
	case high < 0:
		skew = high
	}
	if skew.Abs() < agreed {
		return 0
	}
	return skew
}

// observe is called when a request is sent; what it returns is called with the
// header of the answer, be it a success or a refusal.
func (s *Source) observe() func(http.Header) {
	sent := s.wall()
	return func(h http.Header) {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			s.skew.Store(int64(skewOf(date, sent, s.wall())))
		}
		s.hearHead(h)
	}
}

// offset is how far the authority's clock is taken to be ahead of ours; 0 until it has answered.
func (s *Source) offset() time.Duration {
	return min(max(time.Duration(s.skew.Load()), -maxSkew), maxSkew)
}

// authority is the present by the clock that dates our certificates.
func (s *Source) authority() time.Time { return s.wall().Add(s.offset()) }

// remaining is the life that a certificate with this end has left by the clock
// that sees less of it: the other one may be right.
func (s *Source) remaining(notAfter time.Time) time.Duration {
	return min(notAfter.Sub(s.wall()), notAfter.Sub(s.authority()))
}

// term is the life of a certificate by two clocks.
type term struct {
	received time.Time // by ours
	issued   time.Time // by the authority's
	notAfter time.Time
}

// planned is the moment by our clock to renew: the same share of the life by
// either clock, whichever is earlier. A clock that lags would otherwise renew
// after the end, one that is fast would call the certificate over before.
func (t term) planned(skew time.Duration, u float64) time.Time {
	at := lifetime.RenewAt(t.received, t.notAfter, u)
	if !t.issued.Before(t.notAfter) { // what was issued just now is not over: that clock has changed since
		return at
	}
	if theirs := lifetime.RenewAt(t.issued, t.notAfter, u).Add(-skew); theirs.Before(at) {
		return theirs
	}
	return at
}
