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
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/wallclock"
)

const (
	life    = 24 * time.Hour
	typeCRL = "X509 CRL" // RFC 7468 §7

	// A list of at most small entries costs less to make than one of the
	// revocations that it tells of, so it is made for each. A longer one is made
	// once in pace: the cost of revocation stays linear, and 100 000 revoked
	// certificates keep a hundredth of a core busy while more are being revoked.
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
	pem     func() []byte // kept; nil for a list that is short
}

// DER is the list as it was signed. Read only.
func (c *List) DER() []byte { return c.der }

// Sum is the SHA-256 of DER: lists with one sum are one list.
func (c *List) Sum() [sha256.Size]byte { return c.sum }

// Entries is how many certificates are on it.
func (c *List) Entries() int { return c.entries }

// Made is when it was signed; zero for the list of a root, which was read.
func (c *List) Made() time.Time { return c.made }

// PEM is the list in PEM (RFC 7468 §7). Read only.
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

// isFresh lists need no other reason to be replaced: halfway to their NextUpdate
// there is time to notice that a new one cannot be made.
func (c *List) isFresh(now time.Time) bool {
	return now.Before(c.made.Add(life/2)) && !now.Before(c.made) // a clock that was set back makes it suspect
}

// generator keeps the list of one issuer and makes the next one from it.
type generator struct {
	current atomic.Pointer[List]
	sem     chan struct{} // held to make the next list; a channel, because making does I/O and waiters must be able to leave

	// Guarded by sem:
	entries entries
	upTo    int64 // up to which entries are complete
	changed bool  // entries are not those of current
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
	long atomic.Bool // it was said that the answer is

	mu sync.Mutex
	by map[string]*generator
}

// New returns lists of which none is made yet.
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

// Reset drops all lists with the keys that sign them: after a reload these are read again.
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
	if serves(time.Now()) { // made while we waited: all who wait share one
		return g.current.Load(), nil
	}
	if c := g.current.Load(); c != nil && c.isFresh(time.Now()) && !wallclock.Until(ctx, c.replaceableAt(), nil) {
		return nil, ctx.Err()
	}
	return m.next(ctx, g, cacert.Issuer{Cert: issuing, Key: signer})
}

// next brings the entries up to date and signs, if there is anything new to say.
func (m *Lists) next(ctx context.Context, g *generator, by cacert.Issuer) (*List, error) {
	mark, err := m.cfg.Record.RevocationMark(ctx) // anew: what came while we waited is in as well
	if err != nil {
		return nil, err
	}
	now, old := time.Now(), g.current.Load()
	if old != nil && now.Before(old.made) {
		// The clock was ahead, and entries may have been dropped as expired that have not.
		g.entries, g.upTo, g.changed = entries{}, 0, true
	}
	fresh, err := m.cfg.Record.RevokedBetween(ctx, record.RevokedRange{Issuer: cacert.KeyID(by.Cert), After: g.upTo, UpTo: mark, Now: now})
	if err != nil {
		return nil, err
	}
	for _, l := range fresh {
		if err := g.entries.add(l); err != nil {
			g.entries, g.upTo, g.changed = entries{}, 0, true // half of them are in
			return nil, err
		}
	}
	g.upTo = mark
	gone := g.entries.expire(now)
	g.changed = g.changed || gone || len(fresh) > 0   // until they are signed, which may fail below
	if old != nil && !g.changed && old.isFresh(now) { // the revocation was under another issuer
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

// warnOfLength says when GET /revoked gets so long that clients may soon not read it
// any more: once, and again after it was shorter.
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

// AnswerSize is how much of the answer of GET /revoked a list of so many bytes of
// DER takes, with its issuer: 48 of them are a line of 64 characters and two for
// its end.
func AnswerSize(der int) int { return (der+47)/48*66 + 2<<10 }

// openSigner finds the key once: for a retired issuer that means to derive a key
// from the password, which takes a second.
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
