package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/wallclock"
)

const (
	crlLife = 24 * time.Hour
	typeCRL = "X509 CRL" // RFC 7468 §7
	typePEM = "application/x-pem-file"

	// A list of at most crlSmall entries costs less to make than one of the
	// revocations that it tells of, so it is made for each. A longer one is made
	// once in crlPace: what revocation costs stays linear, and 100 000 revoked
	// certificates keep a hundredth of a core busy while more are being revoked.
	crlSmall = 1000
	crlPace  = time.Second
)

// List is a signed list. It does not change.
type List struct {
	der     []byte
	sum     [sha256.Size]byte // of der
	upTo    int64             // store.RevocationMark up to which it is complete
	entries int
	made    time.Time
	pem     func() []byte // kept; nil for a list that is short
}

func (c *List) inPEM() []byte {
	if c.pem != nil {
		return c.pem()
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: c.der})
}

// replaceableAt is when a list that misses a revocation may be replaced.
func (c *List) replaceableAt() time.Time {
	if c.entries <= crlSmall {
		return c.made
	}
	return c.made.Add(crlPace)
}

// isFresh lists need no other reason to be replaced: halfway to their NextUpdate
// there is time to notice that a new one cannot be made.
func (c *List) isFresh(now time.Time) bool {
	return now.Before(c.made.Add(crlLife/2)) && !now.Before(c.made) // a clock that was set back makes it suspect
}

// generator keeps the list of one issuer and makes the next one from it.
type generator struct {
	current atomic.Pointer[List]
	sem     chan struct{} // held to make the next list; a channel, because making does I/O and waiters must be able to leave

	// Guarded by sem:
	entries crlEntries
	upTo    int64 // up to which entries are complete
	changed bool  // entries are not those of current
	issuing cacert.Issuer
}

// Lists are those of all issuers that were asked for, by subject key id.
type Lists struct {
	mu sync.Mutex
	by map[string]*generator
}

func (m *Lists) forIssuer(id string) *generator {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = make(map[string]*generator)
	}
	if m.by[id] == nil {
		m.by[id] = &generator{sem: make(chan struct{}, 1)}
	}
	return m.by[id]
}

// reset drops all lists with the keys that sign them: after a reload they are read again.
func (m *Lists) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.by = nil
}

// currentCRL returns the list of an issuer. With exact it knows every revocation that
// was committed before the call, by this process or another, and a long list may
// take crlPace to come. Without, a long list may miss those of the last crlPace.
func (a *Authority) currentCRL(ctx context.Context, st *state, issuing *x509.Certificate, exact bool) (*List, error) {
	mark, err := a.record.RevocationMark(ctx)
	if err != nil {
		return nil, err
	}
	m := a.lists.forIssuer(cacert.KeyID(issuing))
	serves := func(now time.Time) bool {
		c := m.current.Load()
		return c != nil && c.isFresh(now) && (c.upTo >= mark || !exact && now.Before(c.replaceableAt()))
	}
	if serves(time.Now()) {
		return m.current.Load(), nil
	}
	select {
	case m.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-m.sem }()
	if serves(time.Now()) { // made while we waited: all who wait share one
		return m.current.Load(), nil
	}
	if c := m.current.Load(); c != nil && c.isFresh(time.Now()) && !wallclock.Until(ctx, c.replaceableAt(), nil) {
		return nil, ctx.Err()
	}
	return a.makeCRL(ctx, st, m, issuing)
}

// makeCRL brings the entries up to date and signs, if there is anything new to say.
func (a *Authority) makeCRL(ctx context.Context, st *state, m *generator, issuing *x509.Certificate) (*List, error) {
	mark, err := a.record.RevocationMark(ctx) // anew: what came while we waited is in as well
	if err != nil {
		return nil, err
	}
	now, old := time.Now(), m.current.Load()
	if old != nil && now.Before(old.made) {
		// The clock was ahead, and entries may have been dropped as expired that have not.
		m.entries, m.upTo, m.changed = crlEntries{}, 0, true
	}
	fresh, err := a.record.RevokedBetween(ctx, record.RevokedRange{Issuer: cacert.KeyID(issuing), After: m.upTo, UpTo: mark, Now: now})
	if err != nil {
		return nil, err
	}
	for _, l := range fresh {
		if err := m.entries.add(l); err != nil {
			m.entries, m.upTo, m.changed = crlEntries{}, 0, true // half of them are in
			return nil, err
		}
	}
	m.upTo = mark
	gone := m.entries.expire(now)
	m.changed = m.changed || gone || len(fresh) > 0   // until they are signed, which may fail below
	if old != nil && !m.changed && old.isFresh(now) { // the revocation was under another issuer
		next := *old
		next.upTo = mark
		m.current.Store(&next)
		return &next, nil
	}
	if err := a.openSigner(st, m, issuing); err != nil {
		return nil, err
	}
	der, err := signCRL(m.issuing, crlHead{
		number:     big.NewInt(now.UnixMicro()), // grows without being stored (RFC 5280 §5.2.3)
		thisUpdate: now, nextUpdate: now.Add(crlLife),
	}, &m.entries)
	if err != nil {
		return nil, err
	}
	made := &List{
		der: der, sum: sha256.Sum256(der), upTo: mark, entries: len(m.entries.each), made: now,
		pem: sync.OnceValue(func() []byte { return pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: der}) }),
	}
	m.current.Store(made)
	m.changed = false
	a.warnOfLength(ctx)
	return made, nil
}

// warnOfLength says when GET /revoked gets so long that clients may soon not read it
// any more: once, and again after it was shorter.
func (a *Authority) warnOfLength(ctx context.Context) {
	size := a.lists.size()
	if long := size > stepapi.MaxRevoked/2; a.long.Swap(long) || !long {
		return
	}
	a.logger.WarnContext(ctx, "the revocation lists are long: beyond the limit every client keeps the last ones, and is not ready once these are out of date",
		"bytes", size, "limit", stepapi.MaxRevoked)
}

// size is how long the answer of GET /revoked is with the lists that were made last.
func (m *Lists) size() (bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, maker := range m.by {
		if c := maker.current.Load(); c != nil {
			bytes += revokedSize(len(c.der))
		}
	}
	return bytes
}

// openSigner finds the key once: for a retired issuer that means to derive a key
// from the password, which takes a second.
func (a *Authority) openSigner(st *state, m *generator, issuing *x509.Certificate) error {
	if m.issuing.Cert != nil {
		return nil
	}
	signer := st.signer
	if !bytes.Equal(issuing.Raw, st.intermediates[0].Raw) {
		var err error
		if signer, err = a.files.readKey(issuing, ""); err != nil {
			return err
		}
	}
	m.issuing = cacert.Issuer{Cert: issuing, Key: signer}
	return nil
}
