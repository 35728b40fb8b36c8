// Package pace shares a number of bytes per second among many senders.
package pace

import (
	"context"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/wallclock"
)

// burst is how much may be sent at once after a pause, as a part of the bytes of a second.
// With less, each piece would have to wait; with more, others on the line would notice.
const burst = time.Second / 10

// Bucket is a limit. The zero value and nil have none. It is safe for concurrent use.
type Bucket struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	next time.Time // when the next byte may be sent
}

// New limits to rate bytes per second; 0 or less is no limit.
func New(rate int64) *Bucket { return &Bucket{rate: rate} }

// Limited reports whether Take can wait.
func (b *Bucket) Limited() bool { return b != nil && b.rate > 0 }

// Take waits until n more bytes may be sent. Callers are served in the order of their calls.
// If ctx ends, it returns the cause of that; the n bytes count as sent, so that a caller that
// gives up does not make room for a burst.
func (b *Bucket) Take(ctx context.Context, n int) error {
	if !b.Limited() {
		return nil
	}
	wait := b.reserve(n, time.Now())
	if wait <= 0 {
		return nil
	}
	return wallclock.Sleep(ctx, wait)
}

// reserve returns how long to wait before n bytes may be sent at now.
func (b *Bucket) reserve(n int, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if oldest := now.Add(-burst); b.next.Before(oldest) {
		b.next = oldest
	}
	wait := b.next.Sub(now)
	b.next = b.next.Add(time.Duration(float64(n) / float64(b.rate) * float64(time.Second)))
	return wait
}
