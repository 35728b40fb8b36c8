package devstack

import (
	"context"
	"crypto/tls"
	"hash/maphash"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/artstore/artstore-pki/internal/certs"
)

// Comparing a secret costs a quarter of a second of CPU by design. So wrong secrets are
// counted, and a peer with too many of them is refused before the comparison.
const (
	// accountGuesses wrong secrets of a peer for one account are allowed at once; after
	// that one each accountRefill.
	accountGuesses = 10
	accountRefill  = 6 * time.Second
	// peerGuesses is the same for one peer and all accounts together.
	peerGuesses = 30
	peerRefill  = 2 * time.Second

	// The accounts of a peer are counted in guessShards places, chosen by a hash of the
	// id. So ids that a client invents cost no memory, and the answer does not tell
	// whether an account exists.
	guessShards = 256
	// maxGuessers bounds the peers that are remembered.
	maxGuessers = 4096
)

// guesses counts wrong secrets for each peer, and for each peer and account. It also
// compares only one secret of a peer at a time: many requests of one peer delay the
// request of another by one comparison at most.
type guesses struct {
	seed maphash.Seed
	mu   sync.Mutex
	by   map[string]*guesser // by name of the peer
}

// guesser has the counters of one peer.
type guesser struct {
	// turn is held during a comparison. It is a channel, because a request that waits for
	// it must be able to end.
	turn     chan struct{}
	mu       sync.Mutex
	all      *rate.Limiter
	accounts [guessShards]*rate.Limiter
}

// newGuesses returns counters that know no peer yet.
func newGuesses() *guesses {
	return &guesses{seed: maphash.MakeSeed(), by: make(map[string]*guesser)}
}

// try runs compare, unless the peer has guessed too often. Then wait is above 0, and is the
// time until the next guess. The limit is checked again after the queue, because the
// requests before this one may have used it up.
func (g *guesses) try(ctx context.Context, peer, id string, compare func() bool) (ok bool, wait time.Duration) {
	by := g.of(peer)
	account := int(maphash.String(g.seed, id) % guessShards)
	if wait := by.delay(account, time.Now()); wait > 0 { // before the queue
		return false, wait
	}
	select {
	case by.turn <- struct{}{}:
		defer func() { <-by.turn }()
	case <-ctx.Done():
		return false, 0
	}
	if wait := by.delay(account, time.Now()); wait > 0 { // those before us in the queue were wrong
		return false, wait
	}
	if ok = compare(); !ok && ctx.Err() == nil {
		by.charge(account, time.Now())
	}
	return ok, 0
}

// of returns the counters of a peer. When there are too many peers, all are forgotten.
func (g *guesses) of(peer string) *guesser {
	g.mu.Lock()
	defer g.mu.Unlock()
	by := g.by[peer]
	if by != nil {
		return by
	}
	if len(g.by) >= maxGuessers { // peers are names of an allow-list: only a server without TLS gets here
		clear(g.by)
	}
	by = &guesser{turn: make(chan struct{}, 1), all: rate.NewLimiter(rate.Every(peerRefill), peerGuesses)}
	g.by[peer] = by
	return by
}

// accountLimiter returns the limiter in place i, and makes it at its first use.
func (b *guesser) accountLimiter(i int) *rate.Limiter {
	if b.accounts[i] == nil {
		b.accounts[i] = rate.NewLimiter(rate.Every(accountRefill), accountGuesses)
	}
	return b.accounts[i]
}

// delay returns the time until one more guess is allowed, 0 for now.
func (b *guesser) delay(account int, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(missing(b.all, now, peerRefill), missing(b.accountLimiter(account), now, accountRefill))
}

// missing returns the time until the limiter has a whole token.
func missing(l *rate.Limiter, now time.Time, refill time.Duration) time.Duration {
	return time.Duration(max(0, 1-l.TokensAt(now)) * float64(refill))
}

// charge counts a wrong secret. Correct ones cost nothing.
func (b *guesser) charge(account int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all.AllowN(now, 1)
	b.accountLimiter(account).AllowN(now, 1)
}

// peerName returns the name by which guesses are counted: the first name in the verified
// certificate, which stays the same after a renewal, or the address without TLS.
func peerName(r *http.Request) string {
	if names := verifiedNames(r.TLS); len(names) > 0 {
		return names[0]
	}
	return r.RemoteAddr
}

// verifiedNames returns the names in the verified certificate of the peer, or nil without one.
func verifiedNames(state *tls.ConnectionState) []string {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	return certs.Names(state.VerifiedChains[0][0])
}

// tooManyGuesses is the error for a peer that must wait. The answer is 429 with Retry-After
// (RFC 6585 §4).
type tooManyGuesses struct{ wait time.Duration }

func (e *tooManyGuesses) Error() string {
	return "too many wrong secrets of this peer: try again in " + e.seconds() + " s"
}

func (e *tooManyGuesses) seconds() string { return strconv.Itoa(int(math.Ceil(e.wait.Seconds()))) }
