package ingestclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/wallclock"
)

const (
	retryMin, retryMax = 100 * time.Millisecond, 5 * time.Second
	lagMin, lagMax     = 250 * time.Millisecond, 4 * time.Second
	maxMoves           = 3 // retries because a generation was retired before anything was sent; they do not count as attempts
)

// retry decides whether and when one request is sent again.
type retry struct {
	s        *settings
	failures int
	moves    int // to another generation
	rejected int
	since    time.Time // of the first 401
}

// next returns whether to try again after e, and after which wait. A 401 does not
// count as a failure: after the first one the next attempt, with a new token, follows
// at once; later ones are repeated for Config.TokenLag, because the server may not
// have loaded the key that signed the token.
func (r *retry) next(e *RequestError, now time.Time, u float64) (wait time.Duration, again bool) {
	if errors.Is(e, ErrUnauthorized) {
		r.rejected++
		if r.rejected == 1 {
			r.since = now
			return 0, true
		}
		left := r.s.TokenLag - now.Sub(r.since)
		if left <= 0 {
			return 0, false
		}
		wait = backoff.Half(backoff.Step(lagMin, lagMax, r.rejected-2), u)
		return min(left, wait), true
	}
	if e.retired != nil && r.moves < maxMoves {
		r.moves++
		return 0, true
	}
	r.failures++
	if !e.Retryable || r.failures >= r.s.MaxAttempts {
		return 0, false
	}
	wait = backoff.Between(retryMin, backoff.Step(retryMin, retryMax, r.failures), u)
	return max(wait, min(e.retryAfter, r.s.MaxRetryAfter)), true
}

// repeat runs try until it succeeds or must not be repeated, and returns the
// number of attempts.
func (c *Client) repeat(ctx context.Context, try func(attempt int) *RequestError) (int, error) {
	r := retry{s: c.settings}
	for n := 1; ; n++ {
		e := try(n)
		if e == nil {
			return n, nil
		}
		e.Attempt = n
		now := time.Now()
		wait, again := r.next(e, now, c.settings.jitter())
		if e.retired != nil {
			c.tokens.dropRetired(e.retired)
		}
		if errors.Is(e, ErrUnauthorized) {
			c.count.rejected.Add(1)
			if r.rejected == 1 { // a server without the key would refuse the next token too
				c.tokens.invalidate(e.token)
			}
		}
		if !again || ctx.Err() != nil {
			return n, e
		}
		if end, ok := ctx.Deadline(); ok && end.Sub(now) < wait {
			return n, e // more useful than the deadline, which would pass during the wait
		}
		c.count.retries.Add(1)
		c.settings.Observer.Retry(n, e.Sent, e)
		// At debug level: selector and token manager log each outage once.
		c.settings.Logger.Debug("request will be repeated", "path", e.Name, "err", e)
		if err := wallclock.Sleep(ctx, wait); err != nil {
			last := *e // a copy: the observer has e, and may read it at any time
			last.Err = fmt.Errorf("%w: %w", err, e.Err)
			return n, &last
		}
	}
}
