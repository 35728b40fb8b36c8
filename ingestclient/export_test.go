package ingestclient

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// For the external tests: parsers and pure functions, and a fake of a rotating
// identity whose round trippers the test chooses, because a synctest bubble must
// not use sockets.
var (
	RefreshTimes = refreshTimes
	ParseError   = parseError
	Clean        = clean
	CleanName    = cleanName
	RetryAfter   = retryAfter
	Backoff      = tokenPause
	HoldFor      = holdFor
	ByStatus     = byStatus
)

const (
	Never      = never
	Always     = always
	Incomplete = incomplete
	Spacing    = spacing
)

// BytesContent is the content that most tests send.
func BytesContent(name string, b []byte) Content {
	return ReaderContent(name, bytes.NewReader(b), int64(len(b)))
}

// Parse reports what New would say about cfg.
func Parse(cfg Config, withIdentity bool) error {
	var id *rotation.Identity
	if withIdentity {
		id = &rotation.Identity{}
	}
	_, err := cfg.parse(id)
	return err
}

// ParsedToken is what a token answer came out as.
type ParsedToken struct {
	Secret secret.String
	Life   time.Duration
	Known  bool
	Cnf    bool
	X5T    string
}

func ParseToken(body []byte) (ParsedToken, error) {
	a, err := parseTokenAnswer(body)
	return ParsedToken{a.secret, a.lifetime, a.known, a.cnf, a.x5t}, err
}

// ParsedAnswer is what an upload answer came out as.
type ParsedAnswer struct {
	FileID, Name, SHA256 string
	Size                 int64
}

func ParseAnswer(raw []byte) (ParsedAnswer, error) {
	a, err := parseAnswer(raw)
	return ParsedAnswer{a.fileID, a.name, a.sha256, a.size}, err
}

// ParsePage returns the files of a list's page, and how many the whole list has.
func ParsePage(raw []byte) ([]*File, int, error) {
	p, err := parsePage(raw)
	return p.files, p.total, err
}

// FakeGeneration is one generation of a FakeIdentity.
type FakeGeneration struct {
	Number         uint64
	Thumb          string
	NotAfter       time.Time
	Storage, Token http.RoundTripper
}

// FakeIdentity is a rotating identity made of FakeGenerations; it counts their leases.
type FakeIdentity struct {
	mu     sync.Mutex
	cur    FakeGeneration
	fns    []func()
	leased map[uint64]int
	Closed int
}

func NewFakeIdentity(g FakeGeneration) *FakeIdentity {
	return &FakeIdentity{cur: g, leased: map[uint64]int{}}
}

// Set publishes g and notifies, as a rotation does.
func (r *FakeIdentity) Set(g FakeGeneration) {
	r.mu.Lock()
	r.cur = g
	fns := r.fns
	r.mu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// Leased returns how many leases of generation n are out.
func (r *FakeIdentity) Leased(n uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leased[n]
}

func (r *FakeIdentity) lease() *lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.cur
	r.leased[g.Number]++
	return newLease(lease{
		number: g.Number, thumb: g.Thumb, notAfter: g.NotAfter, storage: g.Storage, token: g.Token,
		release: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.leased[g.Number]--
		},
	})
}

// NewWithFake is New with a FakeIdentity; jitter replaces the random numbers, nil keeps them.
func NewWithFake(cfg Config, r *FakeIdentity, jitter func() float64) (*Client, error) {
	s, err := cfg.parse(&rotation.Identity{})
	if err != nil {
		return nil, err
	}
	if jitter != nil {
		s.jitter = jitter
	}
	return newClient(s, leaseSource{
		lease: r.lease,
		subscribe: func(fn func()) func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.fns = append(r.fns, fn)
			return func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.fns = nil
			}
		},
		close: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.Closed++
		},
	}), nil
}

// Next is the retry policy for a sequence of failures, each d after the one before.
func Next(cfg Config, failures []*RequestError, d time.Duration) (waits []time.Duration) {
	s, err := cfg.parse(&rotation.Identity{})
	if err != nil {
		panic(err)
	}
	r := retry{s: s}
	now := time.Unix(0, 0)
	for _, e := range failures {
		wait, again := r.next(e, now, 0)
		if !again {
			return waits
		}
		waits = append(waits, wait)
		now = now.Add(wait + d)
	}
	return waits
}

// TakeToken takes a credential as an attempt does, and returns its lease.
func (c *Client) TakeToken(ctx context.Context) error {
	cred, err := c.tokens.get(ctx)
	if err == nil {
		cred.lease.unref()
	}
	return err
}

// Filled returns cfg as a client has it, defaults filled in.
func Filled(cfg Config) Config {
	s, err := cfg.parse(&rotation.Identity{})
	if err != nil {
		panic(err)
	}
	return s.Config
}
