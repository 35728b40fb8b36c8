package crl

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/wallclock"
)

const (
	life    = 24 * time.Hour // from thisUpdate to nextUpdate
	typeCRL = "X509 CRL"     // RFC 7468 §6

	// A list of at most small entries costs less to make than one revocation costs to record,
	// so it is made after each. A longer one is made at most once in pace. The cost of
	// revoking therefore grows linearly, and a list of 100 000 entries takes a hundredth of a
	// core while revocations go on.
	small = 1000
	pace  = time.Second
)

// List is a signed revocation list (RFC 5280 §5). It does not change.
type List struct {
	der     []byte
	sum     [sha256.Size]byte // of der
	upTo    int64             // store.RevocationMark up to which it is complete
	entries int
	made    time.Time
	pem     func() []byte // returns the cached PEM; nil for a short list, which is encoded each time

	// Only for the list of a root:
	parsed *x509.RevocationList
	issuer revocation.Issuer
}

// DER is the list as it was signed. Read only.
func (c *List) DER() []byte { return c.der }

// Sum is the SHA-256 of DER: lists with one sum are one list.
func (c *List) Sum() [sha256.Size]byte { return c.sum }

// Entries is how many certificates are on it.
func (c *List) Entries() int { return c.entries }

// Made is when it was signed; zero for the list of a root, which is read from a file.
func (c *List) Made() time.Time { return c.made }

// PEM is the list in PEM (RFC 7468 §6). Read only.
func (c *List) PEM() []byte {
	if c.pem != nil {
		return c.pem()
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: c.der})
}

// replaceableAt is when a list that misses a revocation may be replaced.
func (c *List) replaceableAt() time.Time {
	if c.entries <= small {
		return c.made
	}
	return c.made.Add(pace)
}

// isFresh reports whether the list can stay if nothing was revoked. A list is made again after
// half of its life: if that fails, half of it is left to repair the cause.
func (c *List) isFresh(now time.Time) bool {
	return now.Before(c.made.Add(life/2)) && !now.Before(c.made) // false after the clock was set back
}

// generator keeps the list of one issuer and makes the next one from it.
type generator struct {
	current atomic.Pointer[List]
	sem     chan struct{} // full while a list is being made; a channel, so that a wait for it can end early

	// Guarded by sem:
	entries entries
	upTo    int64 // up to which entries are complete
	changed bool  // entries differ from those of current
	issuing cacert.Issuer
}

// Config is what lists are made from.
type Config struct {
	// Record has the revocations.
	Record *store.Store
	// Key returns the key of an issuer whose signer Get was not given. It may take
	// a second: a key is derived from the password.
	Key func(*x509.Certificate) (crypto.Signer, error)
	// Logger is told when the lists get so long that clients may not read them.
	Logger *slog.Logger
}

// Lists are those of all issuers that were asked for, by subject key id. They are
// safe for concurrent use.
type Lists struct {
	cfg  Config
	long atomic.Bool // warnOfLength has warned, and the answer is still long

	mu sync.Mutex
	by map[string]*generator
}

// New returns lists. Each is made when it is asked for the first time.
func New(cfg Config) *Lists { return &Lists{cfg: cfg} }

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

// Reset drops all lists and the keys that sign them. A reload calls it, because it may have
// changed the keys.
func (m *Lists) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.by = nil
}

// Get returns the list of an issuer, signed by signer, or if that is nil by the key
// that Config.Key returns. With exact it has every revocation that was committed
// before the call, by this process or another, and a long list may take a second to
// come. Without, a long list may miss those of the last second. Errors are those of
// ctx, of the record, of the key and of signing.
func (m *Lists) Get(ctx context.Context, issuing *x509.Certificate, signer crypto.Signer, exact bool) (*List, error) {
	mark, err := m.cfg.Record.RevocationMark(ctx)
	if err != nil {
		return nil, err
	}
	g := m.forIssuer(cacert.KeyID(issuing))
	serves := func(now time.Time) bool {
		c := g.current.Load()
		return c != nil && c.isFresh(now) && (c.upTo >= mark || !exact && now.Before(c.replaceableAt()))
	}
	if serves(time.Now()) {
		return g.current.Load(), nil
	}
	select {
	case g.sem <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-g.sem }()
	if serves(time.Now()) { // another caller has made it while this one waited
		return g.current.Load(), nil
	}
	if c := g.current.Load(); c != nil && c.isFresh(time.Now()) && !wallclock.Until(ctx, c.replaceableAt(), nil) {
		return nil, ctx.Err()
	}
	return m.next(ctx, g, cacert.Issuer{Cert: issuing, Key: signer})
}

// next reads the revocations since the last list, and signs a list if there is a new one or
// the current one is old.
func (m *Lists) next(ctx context.Context, g *generator, by cacert.Issuer) (*List, error) {
	mark, err := m.cfg.Record.RevocationMark(ctx) // read again, so that the list is complete up to now
	if err != nil {
		return nil, err
	}
	now, old := time.Now(), g.current.Load()
	if old != nil && now.Before(old.made) {
		// The clock was set back. Entries may have been dropped whose certificates are valid.
		g.entries, g.upTo, g.changed = entries{}, 0, true
	}
	fresh, err := m.cfg.Record.RevokedBetween(ctx, record.RevokedRange{Issuer: cacert.KeyID(by.Cert), After: g.upTo, UpTo: mark, Now: now})
	if err != nil {
		return nil, err
	}
	for _, l := range fresh {
		if err := g.entries.add(l); err != nil {
			g.entries, g.upTo, g.changed = entries{}, 0, true // some were added before the error
			return nil, err
		}
	}
	g.upTo = mark
	gone := g.entries.expire(now)
	g.changed = g.changed || gone || len(fresh) > 0   // stays true if signing fails below
	if old != nil && !g.changed && old.isFresh(now) { // revocations were of other issuers only
		next := *old
		next.upTo = mark
		g.current.Store(&next)
		return &next, nil
	}
	if err := m.openSigner(g, by); err != nil {
		return nil, err
	}
	der, err := sign(g.issuing, head{
		number:     big.NewInt(now.UnixMicro()), // grows without being stored (RFC 5280 §5.2.3)
		thisUpdate: now, nextUpdate: now.Add(life),
	}, &g.entries)
	if err != nil {
		return nil, err
	}
	made := &List{
		der: der, sum: sha256.Sum256(der), upTo: mark, entries: len(g.entries.each), made: now,
		pem: sync.OnceValue(func() []byte { return pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: der}) }),
	}
	g.current.Store(made)
	g.changed = false
	m.warnOfLength(ctx)
	return made, nil
}

// warnOfLength logs a warning when the answer of GET /revoked is near the length that clients
// accept. It logs once, and again only after the answer was shorter.
func (m *Lists) warnOfLength(ctx context.Context) {
	size := m.Size()
	if long := size > stepapi.MaxRevoked/2; m.long.Swap(long) || !long {
		return
	}
	m.cfg.Logger.WarnContext(ctx, "the revocation lists are long: beyond the limit every client keeps the last ones, and is not ready once these are out of date",
		"bytes", size, "limit", stepapi.MaxRevoked)
}

// Size is how long the answer of GET /revoked is with the lists that were made last.
func (m *Lists) Size() (bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, maker := range m.by {
		if c := maker.current.Load(); c != nil {
			bytes += AnswerSize(len(c.der))
		}
	}
	return bytes
}

// Age is that of the oldest list that was asked for.
func (m *Lists) Age(now time.Time) (age time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.by {
		if c := g.current.Load(); c != nil {
			age = max(age, now.Sub(c.made))
		}
	}
	return age
}

// AnswerSize returns the bytes that a list of so many bytes of DER takes in the answer of GET
// /revoked, with its issuer. In PEM, 48 bytes are a line of 64 characters with its end.
func AnswerSize(der int) int { return (der+47)/48*66 + 2<<10 }

// openSigner gets the key of a retired issuer and keeps it: decrypting it with the password
// takes a second.
func (m *Lists) openSigner(g *generator, by cacert.Issuer) (err error) {
	if g.issuing.Cert != nil {
		return nil
	}
	if by.Key == nil {
		if by.Key, err = m.cfg.Key(by.Cert); err != nil {
			return err
		}
	}
	g.issuing = by
	return nil
}
