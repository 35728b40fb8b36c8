package cert

import (
	"crypto/sha256"
	"sync"
)

// maxKnown bounds the certificates that a [Cache] keeps.
const maxKnown = 4 << 10

// Cache keeps the certificates of authorities, because an intermediate is found beside each
// leaf. It is parsed once. The zero value is ready, and goroutines may share it.
type Cache struct {
	mu    sync.RWMutex
	known map[[sha256.Size]byte]*Certificate
}

// get returns the certificate with a fingerprint, or nil.
func (a *Cache) get(fingerprint [sha256.Size]byte) *Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.known[fingerprint]
}

// Canonical returns the first certificate that equals c. If c is the first, it is kept.
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

// Parse is [Parse]. It returns the certificate of an authority that is known already, and
// keeps a new one with its DER.
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
