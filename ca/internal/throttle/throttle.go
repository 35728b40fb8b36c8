// Package throttle spaces work that any of many concurrent requests may do.
package throttle

import (
	"sync/atomic"
	"time"
)

// Throttle says when work is due that is done now and then, by the request that comes
// at that time. With the zero value the work is due at once. Throttle is safe for
// concurrent use.
type Throttle struct{ last atomic.Int64 } // Unix seconds

// Due reports whether the work was due last at least every ago, rounded to seconds. Of
// several callers at that time one gets true; it does the work, and nobody waits for
// it. Work that fails is due again after every.
func (t *Throttle) Due(now time.Time, every time.Duration) bool {
	last := t.last.Load()
	return now.Unix()-last >= int64(every/time.Second) && t.last.CompareAndSwap(last, now.Unix())
}
