package ingestclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/pace"
)

const (
	retryMin, retryMax = 100 * time.Millisecond, 5 * time.Second
	lagMin, lagMax     = 250 * time.Millisecond, 4 * time.Second
	maxMoves           = 3 // a generation was retired before anything was sent: that costs no attempt
)

// retry decides about the next attempt of one request.
type retry struct {
	s        *settings
	failures int
	moves    int // to another generation
	rejected int
	since    time.Time // of the first 401
}

// next says whether to try again after e, and when. Rejected tokens have a budget
// of their own: the first 401 is answered with a new token at once, further ones
// may come from a server that has not loaded the key yet which signed it.
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
		wait = min(lagMax, lagMin<<min(r.rejected-2, 8))
		return min(left, wait/2+time.Duration(u*float64(wait)/2)), true
	}
	if e.retired != nil && r.moves < maxMoves {
		r.moves++
		return 0, true
	}
	r.failures++
	if !e.Retryable || r.failures >= r.s.MaxAttempts {
		return 0, false
	}
	span := min(retryMax, retryMin<<min(r.failures, 8))
	wait = retryMin + time.Duration(u*float64(span-retryMin))
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
			c.keeper.abandon(e.retired)
		}
		if errors.Is(e, ErrUnauthorized) {
			c.count.rejected.Add(1)
			if r.rejected == 1 { // a lagging server would refuse the next one just as well
				c.keeper.invalidate(e.token)
			}
		}
		if !again || ctx.Err() != nil {
			return n, e
		}
		if end, ok := ctx.Deadline(); ok && end.Sub(now) < wait {
			return n, e // the answer at hand says more than a deadline that passes while we sleep
		}
		c.count.retries.Add(1)
		c.settings.Observer(Event{Kind: EventRetry, Attempt: n, Bytes: e.Sent, Err: e})
		// The outage behind it has a line of its own, once.
		c.settings.Logger.Debug("request will be repeated", "path", e.Name, "err", e)
		if err := pace.Sleep(ctx, wait); err != nil {
			last := *e // the observer has e, and may look at it at any time
			last.Err = fmt.Errorf("%w: %w", err, e.Err)
			return n, &last
		}
	}
}
