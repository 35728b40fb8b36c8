package cert

import (
	"crypto/sha256"
	"sync"
)

// maxKnown bounds the certificates of authorities that are kept to be recognized.
const maxKnown = 4 << 10

// Cache makes one certificate of those that are the same: an intermediate
// lies beside every leaf, and is parsed and verified once.
type Cache struct {
	mu    sync.RWMutex
	known map[[sha256.Size]byte]*Certificate
}

// get finds one by its fingerprint, or returns nil.
func (a *Cache) get(fingerprint [sha256.Size]byte) *Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.known[fingerprint]
}

// Canonical returns what was seen first of certificates like c.
func (a *Cache) Canonical(c *Certificate) *Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if first := a.known[c.Fingerprint]; first != nil {
		return first
	}
	if len(a.known) < maxKnown {
		if a.known == nil {
			a.known = map[[sha256.Size]byte]*Certificate{}
		}
		a.known[c.Fingerprint] = c
	}
	return c
}

// Parse is [Parse] for DER that it keeps, and returns the certificate of an authority that
// is known already.
func (a *Cache) Parse(der []byte) (*Certificate, error) {
	fingerprint := sha256.Sum256(der)
	if c := a.get(fingerprint); c != nil {
		return c, nil
	}
	c, err := parseCertificate(der, fingerprint)
	if err == nil && c.IsCA {
		c = a.Canonical(c)
	}
	return c, err
}
