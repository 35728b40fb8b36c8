package enroll

import "time"

const (
	firstBackoff = time.Second
	maxBackoff   = 5 * time.Minute
	minBackoff   = 100 * time.Millisecond
	// startBackoff is the most to wait before the first certificate: someone is watching the service start.
	startBackoff = 30 * time.Second
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
// from 1 s up to life/20 or 5 min. A step is never more than an eighth of what
// remains, which leaves many attempts before the end however long an outage
// is. Retry-After comes on top, up to half of what remains: an authority that
// asks for longer would have us expire. u is random in [0, 1).
func (r retry) delay(u float64) time.Duration {
	ceiling := startBackoff
	if r.life > 0 {
		ceiling = min(r.life/20, maxBackoff)
	}
	step := ceiling
	if !r.slow && r.failures < 20 {
		step = min(firstBackoff<<max(r.failures-1, 0), ceiling)
	}
	asked := min(r.retryAfter, maxBackoff)
	if r.remaining > 0 {
		step = min(step, r.remaining/8)
		asked = min(r.retryAfter, r.remaining/2)
	}
	d := time.Duration(u * float64(step))
	if r.slow { // the point of slow is not to ask often: half of it is certain
		d = step/2 + d/2
	}
	return max(asked+d, minBackoff)
}

// tick is how long to sleep at most with a certificate of that life: a tenth of
// it, so that also a ten-second certificate is renewed within its window.
func tick(life time.Duration) time.Duration {
	if life <= 0 {
		return maxTick
	}
	return max(min(maxTick, life/10), minTick)
}

// trustEvery is the time between looks at the bundle, before jitter.
func trustEvery(configured, life time.Duration) time.Duration {
	if configured > 0 {
		return configured
	}
	if life <= 0 {
		return defaultTrustRefresh
	}
	return max(min(defaultTrustRefresh, life/6), firstBackoff)
}

// spread puts d anywhere within a tenth below or above it, so that services
// started together drift apart.
func spread(d time.Duration, u float64) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*u))
}
