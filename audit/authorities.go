package audit

import (
	"crypto/sha256"
	"sync"
)

// maxKnown bounds the certificates of authorities that are kept to be recognized.
const maxKnown = 4 << 10

// authorities makes one certificate of those that are the same: an intermediate
// lies beside every leaf, and is parsed and verified once.
type authorities struct {
	mu    sync.RWMutex
	known map[[sha256.Size]byte]*Certificate
}

// get finds one by its fingerprint, or returns nil.
func (a *authorities) get(fingerprint [sha256.Size]byte) *Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.known[fingerprint]
}

// one returns what was seen first of certificates like c. Many goroutines use it
// afterwards, so it is complete.
func (a *authorities) one(c *Certificate) *Certificate {
	c.X509()
	a.mu.Lock()
	defer a.mu.Unlock()
	if first := a.known[c.fingerprint]; first != nil {
		return first
	}
	if len(a.known) < maxKnown {
		if a.known == nil {
			a.known = map[[sha256.Size]byte]*Certificate{}
		}
		a.known[c.fingerprint] = c
	}
	return c
}
