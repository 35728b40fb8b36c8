// Package wallclock waits for moments on the wall clock. A timer of Go runs on the monotonic
// clock, which does not advance while a machine is suspended, so a timer for the next
// morning can fire hours late. Use [Until] for moments that other machines know too, such
// as the end of a certificate.
package wallclock

import (
	"context"
	"time"
)

// Tick is how often Until reads the clock. After a suspension or a change of the clock, Until
// returns this much late at most.
const Tick = 30 * time.Second

// Until waits for at, and reports true when it is past or when a value comes from
// wake, which may be nil. It reports false when ctx ends first.
func Until(ctx context.Context, at time.Time, wake <-chan struct{}) bool {
	at = at.Round(0) // without its monotonic reading, so that the comparison is by the wall clock
	for {
		wait := time.Until(at)
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(min(wait, Tick))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-wake:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
}

// Sleep waits for d or for the end of ctx, whose cause it returns. A suspension of the machine
// makes the wait longer, so it is for waits that are short, or do not concern other
// machines.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
