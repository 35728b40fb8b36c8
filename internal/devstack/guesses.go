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

// Comparing a secret costs a quarter of a second of CPU by design, so wrong
// secrets are counted, and the next ones are refused before the comparison.
const (
	accountGuesses = 10 // wrong secrets of one peer for one account at once, and
	accountRefill  = 6 * time.Second
	peerGuesses    = 30 // for all accounts together
	peerRefill     = 2 * time.Second

	// Accounts of a peer are told apart by a hash, so that names which a client
	// makes up cost no memory, and the answer does not tell whether one exists.
	guessShards = 256
	maxGuessers = 4096
)

// guesses counts wrong secrets by peer, and by peer and account. It also lets one
// secret of a peer be compared at a time: a flood of one peer is in the way of
// another one's request for one comparison at most.
type guesses struct {
	seed maphash.Seed
	mu   sync.Mutex
	by   map[string]*guesser // by name of the peer
}

type guesser struct {
	turn     chan struct{} // of the comparison; a channel, because waiters must be able to leave
	mu       sync.Mutex
	all      *rate.Limiter
	accounts [guessShards]*rate.Limiter
}

func newGuesses() *guesses {
	return &guesses{seed: maphash.MakeSeed(), by: make(map[string]*guesser)}
}

// try runs compare, unless the peer has guessed too often. wait is then how long
// it must let pass; otherwise it is 0.
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

func (b *guesser) accountLimiter(i int) *rate.Limiter {
	if b.accounts[i] == nil {
		b.accounts[i] = rate.NewLimiter(rate.Every(accountRefill), accountGuesses)
	}
	return b.accounts[i]
}

// delay is how long until one more guess is allowed.
func (b *guesser) delay(account int, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(missing(b.all, now, peerRefill), missing(b.accountLimiter(account), now, accountRefill))
}

func missing(l *rate.Limiter, now time.Time, refill time.Duration) time.Duration {
	return time.Duration(max(0, 1-l.TokensAt(now)) * float64(refill))
}

func (b *guesser) charge(account int, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all.AllowN(now, 1)
	b.accountLimiter(account).AllowN(now, 1)
}

// peerName is what guesses are counted by: the certificate's first name, which a
// renewal keeps, or the address where there is no TLS.
func peerName(r *http.Request) string {
	if names := verifiedNames(r.TLS); len(names) > 0 {
		return names[0]
	}
	return r.RemoteAddr
}

func verifiedNames(state *tls.ConnectionState) []string {
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	return certs.Names(state.VerifiedChains[0][0])
}

// tooManyGuesses is the error of a peer that must wait.
type tooManyGuesses struct{ wait time.Duration }

func (e *tooManyGuesses) Error() string {
	return "too many wrong secrets of this peer: try again in " + e.seconds() + " s"
}

func (e *tooManyGuesses) seconds() string { return strconv.Itoa(int(math.Ceil(e.wait.Seconds()))) }
