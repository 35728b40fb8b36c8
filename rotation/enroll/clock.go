package enroll

import (
	"net/http"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	// sameClock is the difference of two clocks below which it counts as 0, because the
	// Date of an answer has whole seconds.
	sameClock = 2 * time.Second
	// maxSkew bounds the difference that decisions take into account.
	maxSkew = 24 * time.Hour
	// minLoggedSkew is the smallest difference, or change of it, that is logged.
	minLoggedSkew = 30 * time.Second
)

// skewOf returns how far another clock is ahead of ours, if it showed date at some moment
// between sent and got by our clock. Several values are possible; the result is the one
// that is closest to 0.
func skewOf(date, sent, got time.Time) time.Duration {
	low, high := date.Sub(got), date.Add(time.Second).Sub(sent) // date was rounded down to a second
	skew := time.Duration(0)
	switch {
	case low > 0:
		skew = low
	case high < 0:
		skew = high
	}
	if skew.Abs() < sameClock {
		return 0
	}
	return skew
}

// observe is called when a request is sent. The function that it returns is called with the
// header of the answer, after a success and after a refusal.
func (s *Source) observe() func(http.Header) {
	sent := s.wallNow()
	return func(h http.Header) {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			s.skew.Store(int64(skewOf(date, sent, s.wallNow())))
		}
		s.noteHead(h)
	}
}

// offset returns how far the authority's clock is ahead of ours, within maxSkew; 0 before
// its first answer.
func (s *Source) offset() time.Duration {
	return min(max(time.Duration(s.skew.Load()), -maxSkew), maxSkew)
}

// authority returns the present by the clock of the authority, which dates certificates.
func (s *Source) authority() time.Time { return s.wallNow().Add(s.offset()) }

// remaining returns how long a certificate with this end is valid, by the clock here or by
// that of the authority: the shorter time, because either may be wrong.
func (s *Source) remaining(notAfter time.Time) time.Duration {
	return min(notAfter.Sub(s.wallNow()), notAfter.Sub(s.authority()))
}

// validity is the life of a certificate by two clocks.
type validity struct {
	received time.Time // by our clock
	issued   time.Time // by the authority's clock
	notAfter time.Time
}

// renewalTime returns when to renew, by our clock. It is the same share of the life, counted
// by each of the clocks, and the earlier one of the two moments. With our clock alone,
// a slow one would renew after the end of the certificate.
func (t validity) renewalTime(skew time.Duration, u float64) time.Time {
	at := lifetime.RenewAt(t.received, t.notAfter, u)
	if !t.issued.Before(t.notAfter) { // a new certificate has not expired: the authority's clock has changed since
		return at
	}
	if theirs := lifetime.RenewAt(t.issued, t.notAfter, u).Add(-skew); theirs.Before(at) {
		return theirs
	}
	return at
}

// The pauses below bound two things: how long a service waits after an authority has come back,
// and how many requests the authority gets then. A service whose certificate is valid works,
// so its fleet comes back within 20 min; one whose certificate, or whose revoked lists, are over
// does not, and comes back within 5 min. docs/design/0040-an-authority-that-is-away.md has what that
// is for a fleet.
const (
	firstBackoff = time.Second
	minBackoff   = 500 * time.Millisecond
	// startBackoff is the longest pause after a refusal, before there is a certificate: an
	// operator may be watching the start.
	startBackoff = 30 * time.Second
	// maxDoubled bounds the doubling. It is far above every ceiling.
	maxDoubled = firstBackoff << 20
	// Bounds of the longest pause: with a valid certificate, without one, and after a refusal.
	minStep, maxStep = 2 * time.Second, 20 * time.Minute
	minOver, maxOver = 5 * time.Second, 5 * time.Minute
	maxSlow          = 5 * time.Minute
	// maxAsked bounds a Retry-After if there is no valid certificate, and maxLater for the
	// trust bundle, the revoked lists and the request that is held.
	maxAsked, maxLater = 5 * time.Minute, time.Hour
	// defaultTrustRefresh is the longest time between two refreshes of the trust bundle, if
	// Config.TrustRefresh is 0.
	defaultTrustRefresh = time.Hour
	// maxTick is the longest sleep. Timers stop while a machine is suspended, so a renewal
	// may come so much too late after waking.
	maxTick = 30 * time.Second
	minTick = 100 * time.Millisecond
)

// retry has everything that the pause after a failure depends on.
type retry struct {
	failures   int           // in a row, at least 1; doubles the step
	life       time.Duration // of the certificate from receipt; 0 if there is none
	remaining  time.Duration // until it expires; ≤ 0 if it has or there is none
	retryAfter time.Duration // as the authority asked for
	slow       bool          // the authority refused: another attempt soon is of no use
}

// delay returns the pause before the next attempt. The step doubles from 1 s up to the
// ceiling, and the pause is a random part of it (full jitter), so that a fleet is spread over
// the step. At the ceiling the fleet is spread already: there the pause is half of the step
// at least, because full jitter would bring twice as many requests at first. Retry-After is
// added, but not more than half of the remaining life, so that the certificate does not
// expire for it. u is random in [0, 1).
func (r retry) delay(u float64) time.Duration {
	step, asked := r.ceiling(), min(r.retryAfter, maxAsked)
	certain := time.Duration(0)
	if s := doubled(r.failures); s < step && !r.slow {
		step = s
	} else {
		certain = step / 2
	}
	if r.remaining > 0 {
		asked = min(r.retryAfter, r.remaining/2)
	}
	return max(asked+certain+time.Duration(u*float64(step-certain)), minBackoff)
}

// ceiling returns the longest step. With a valid certificate it is shorter than what
// remains of its life: so nothing expires if the authority is back in time.
func (r retry) ceiling() time.Duration {
	within := func(d, least, most time.Duration) time.Duration { return min(max(d, least), most) }
	switch {
	case r.life <= 0 && r.slow:
		return startBackoff
	case r.life <= 0:
		return maxOver
	case r.slow && r.remaining > 0:
		return min(within(r.life/20, minOver, maxSlow), r.remaining/2)
	case r.slow:
		return within(r.life/20, minOver, maxSlow)
	case r.remaining > 0:
		return min(within(r.life/8, minStep, maxStep), r.remaining*9/10)
	}
	return within(r.life/8, minOver, maxOver)
}

// doubled returns the step of exponential backoff after so many failures in a row.
func doubled(failures int) time.Duration {
	return backoff.Step(firstBackoff, maxDoubled, failures-1)
}

// tick returns the longest sleep with a certificate of that life: a tenth of it, so that a
// certificate of ten seconds is renewed in time too.
func tick(life time.Duration) time.Duration {
	if life <= 0 {
		return maxTick
	}
	return max(min(maxTick, life/10), minTick)
}

// refreshInterval returns the time between two refreshes of the bundle, or of the lists,
// before jitter.
func refreshInterval(configured, life time.Duration) time.Duration {
	if configured > 0 {
		return configured
	}
	if life <= 0 {
		return defaultTrustRefresh
	}
	return max(min(defaultTrustRefresh, life/6), firstBackoff)
}

// refreshDelay returns the pause before the next refresh, after so many failures in a row.
// The first retries come soon. Later ones come at the regular interval, so that an outage
// does not change the rate of requests.
// A Retry-After is obeyed up to an hour.
func refreshDelay(failures int, every, retryAfter time.Duration, u float64) time.Duration {
	asked := min(retryAfter, maxLater)
	if step := doubled(failures); failures > 0 && step < every/2 {
		return max(asked+time.Duration(u*float64(step)), minBackoff)
	}
	return max(asked+time.Duration(u*float64(every)/10), spread(every, u))
}

// spread returns d changed by a tenth of it at most, at random, so that services that were
// started together do not ask together.
func spread(d time.Duration, u float64) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*u))
}
