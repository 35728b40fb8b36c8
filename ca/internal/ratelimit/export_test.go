package ratelimit

// Size is how many keys are remembered.
func (b *Buckets[K]) Size() int { return b.limiters.Size() }
