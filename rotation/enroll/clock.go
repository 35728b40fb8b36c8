package enroll

import (
	"net/http"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/lifetime"
)

const (
	// sameClock is what two clocks may differ by and still count as one: the header has whole seconds.
	sameClock = 2 * time.Second
	// maxSkew is how far the authority's clock moves our decisions at most.
	maxSkew = 24 * time.Hour
	// minLoggedSkew is a difference, and a change of it, that an operator is told of.
	minLoggedSkew = 30 * time.Second
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
	if skew.Abs() < sameClock {
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
		s.noteHead(h)
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

// validity is the life of a certificate by two clocks.
type validity struct {
	received time.Time // by ours
	issued   time.Time // by the authority's
	notAfter time.Time
}

// renewalTime is the moment by our clock to renew: the same share of the life by
// either clock, whichever is earlier. A clock that lags would otherwise renew
// after the end, one that is fast would call the certificate over before.
func (t validity) renewalTime(skew time.Duration, u float64) time.Time {
	at := lifetime.RenewAt(t.received, t.notAfter, u)
	if !t.issued.Before(t.notAfter) { // what was issued just now is not over: that clock has changed since
		return at
	}
	if theirs := lifetime.RenewAt(t.issued, t.notAfter, u).Add(-skew); theirs.Before(at) {
		return theirs
	}
	return at
}

// The waits below keep the authority from a herd when it comes back: an outage of
// up to half a life is not followed by twice the requests of a quiet time. Most
// of those are looks at the trust bundle and the revoked lists, which go on at
// their steady rate through an outage. What an outage piles up is renewals, so
// the longest step is of the order of the time between looks (a sixth of the life,
// an hour at most): whoever retries then asks about as often as in a quiet time.
const (
	firstBackoff = time.Second
	minBackoff   = 500 * time.Millisecond
	// startBackoff is the most to wait before the first certificate: someone is watching the service start.
	startBackoff = 30 * time.Second
	// maxDoubled ends the doubling. It is far above every ceiling, which ends it in fact.
	maxDoubled = firstBackoff << 20
	// Bounds of the longest step with a good certificate, with one that is over, and after a verdict.
	minStep, maxStep = 2 * time.Second, 2 * time.Hour
	minOver, maxOver = 5 * time.Second, 45 * time.Minute
	maxSlow          = 5 * time.Minute
	// maxAsked bounds what Retry-After may ask for when there is no life left to measure it by.
	maxAsked = 5 * time.Minute
	// defaultTrustRefresh is the longest time between two looks at the trust bundle,
	// if [Config.TrustRefresh] says nothing else.
	defaultTrustRefresh = time.Hour
	// maxTick is the longest sleep. Timers stand still while a machine is suspended, so this is how late a renewal is noticed after waking.
	maxTick = 30 * time.Second
	minTick = 100 * time.Millisecond
)

// retry is what the wait after a failure depends on.
type retry struct {
	failures   int           // in a row, at least 1; doubles the step
	life       time.Duration // of the certificate from receipt; 0 if there is none
	remaining  time.Duration // until it expires; ≤ 0 if it has or there is none
	retryAfter time.Duration // what the authority asked for
	slow       bool          // the answer was a verdict: no use in hurrying
}

// delay is the wait before the next attempt: full jitter (any point of the
// step is as likely, so that a fleet spreads over it) of a step that doubles
// from 1 s up to the ceiling. At the ceiling the fleet is spread already, and half
// of the step is certain: full jitter would bring twice as many in the first
// moments. Retry-After comes on top, up to half of what remains: an authority that
// asks for longer would have us expire. u is random in [0, 1).
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

// ceiling is the longest step. With a good certificate it ends before that does:
// when the authority is back in time, nobody expires. One that is over does not
// come back as late, where lives are long, since something does not work without it.
func (r retry) ceiling() time.Duration {
	within := func(d, least, most time.Duration) time.Duration { return min(max(d, least), most) }
	switch {
	case r.life <= 0:
		return startBackoff
	case r.slow && r.remaining > 0:
		return min(within(r.life/20, minOver, maxSlow), r.remaining/2)
	case r.slow:
		return within(r.life/20, minOver, maxSlow)
	case r.remaining > 0:
		return min(within(r.life/8, minStep, maxStep), r.remaining*9/10)
	}
	return within(r.life/8, minOver, maxOver)
}

// doubled is the step of exponential backoff after so many failures in a row.
func doubled(failures int) time.Duration {
	return backoff.Step(firstBackoff, maxDoubled, failures-1)
}

// tick is how long to sleep at most with a certificate of that life: a tenth of
// it, so that also a ten-second certificate is renewed within its window.
func tick(life time.Duration) time.Duration {
	if life <= 0 {
		return maxTick
	}
	return max(min(maxTick, life/10), minTick)
}

// refreshInterval is the time between looks at the bundle and at the lists, before jitter.
func refreshInterval(configured, life time.Duration) time.Duration {
	if configured > 0 {
		return configured
	}
	if life <= 0 {
		return defaultTrustRefresh
	}
	return max(min(defaultTrustRefresh, life/6), firstBackoff)
}

// refreshDelay is the wait before the next look, after so many failures in a row, of
// which a verdict counts as many. The first retries are quick; then the looks go
// on as if nothing had happened, so that an outage changes nothing about the rate.
func refreshDelay(failures int, every, retryAfter time.Duration, u float64) time.Duration {
	if step := doubled(failures); failures > 0 && step < every/2 {
		return max(min(retryAfter, every)+time.Duration(u*float64(step)), minBackoff)
	}
	return spread(every, u)
}

// spread puts d anywhere within a tenth below or above it, so that services
// started together drift apart.
func spread(d time.Duration, u float64) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*u))
}
