package ingestclient

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/pace"
	"github.com/artstore/artstore-pki/rotation"
)

// Limits on asking the token endpoint.
const (
	// spacing between any two token requests of a client, whatever the reason:
	// never more than five a second.
	spacing = 220 * time.Millisecond
	// A failure that may pass is waited out with full jitter up to the first
	// pair, one that will not with the second: somebody has to act first.
	failMin, failMax     = spacing, 30 * time.Second
	refuseMin, refuseMax = 5 * time.Second, 2 * time.Minute
	// Uploads that have no token are held up no longer than this by a failure that
	// may pass: an endpoint that is back is noticed within a second.
	needMax            = 900 * time.Millisecond
	maxTokenRetryAfter = 5 * time.Minute
)

// keeper holds the current credential and renews both halves of it.
//
// A hit takes no lock. Fetches are flights: one at a time, on a context of the
// client, so that no caller's deadline can end what others wait for (a deadline
// shorter than the endpoint's latency would otherwise end every fetch, for
// ever), and no slow fetch can hold a caller beyond its own.
type keeper struct {
	*settings
	id    identity
	life  *life
	count *counters
	cur   atomic.Pointer[credential]
	wake  chan struct{} // a change arrived while a takeover waits
	clock clock         // the endpoint's; owned by the flight that is up

	mu       sync.Mutex // guards the rest; never held across I/O
	flight   *flight
	fail     failure
	next     time.Time // no token request before this
	taking   bool      // a takeover runs
	again    bool      // and has to look once more
	closed   bool
	running  sync.WaitGroup
	unlisten func()
}

// flight is one token request and who waits for it.
type flight struct {
	done chan struct{}
	err  error // valid once done is closed
}

// failure is the negative cache: what callers hear until the endpoint may be asked again.
type failure struct {
	err    error
	count  int
	until  time.Time         // for those who need a token
	rest   time.Time         // for those who have one that still works
	probed time.Time         // when the secret was last looked at for a change
	proof  [sha256.Size]byte // of the secret or key that was refused
}

func newKeeper(s *settings, id identity, count *counters) *keeper {
	k := &keeper{settings: s, id: id, life: newLife(), count: count, wake: make(chan struct{}, 1)}
	// No goroutine yet and no token: both come with the first need.
	first := id.lease()
	k.cur.Store(&credential{lease: first})
	k.unlisten = id.subscribe(k.changed)
	// A rotation between the two lines above was not heard.
	if l := id.lease(); l.number != first.number {
		k.changed()
		l.done()
	} else {
		l.done()
	}
	return k
}

// get returns the current credential with a token that can be sent. The caller
// owns a reference to its lease and gives it back with done.
func (k *keeper) get(ctx context.Context) (*credential, error) {
	for {
		c := k.cur.Load()
		switch c.token.phase(time.Now()) {
		case fresh:
			// Asked first: with the level off, a hit costs one comparison more.
			if k.Logger.Enabled(ctx, slog.LevelDebug) {
				k.Logger.DebugContext(ctx, "token from cache", "client_id", k.ClientID)
			}
		case stale:
			k.refresh(c)
		case dead:
			if err := k.wait(ctx, c); err != nil {
				return nil, err
			}
			continue
		}
		if c.lease.acquire() { // fails only if it was replaced since the load
			return c, nil
		}
	}
}

// wait joins the fetch for c, starting it if need be, and returns when it is
// over or ctx is. The error is the fetch's, or the cached one.
func (k *keeper) wait(ctx context.Context, c *credential) error {
	f, err := k.join(c)
	if err != nil || f == nil {
		return err
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join returns the flight to wait for. A nil flight without an error means that
// the world has moved on since c was loaded.
func (k *keeper) join(c *credential) (*flight, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	switch {
	case k.closed:
		return nil, ErrClosed
	case k.flight != nil:
		// Also one that takes over from c: its token is as good for the caller,
		// and a second request at the same time is what flights are there to avoid.
		return k.flight, nil
	case k.cur.Load() != c:
		return nil, nil
	case now.Before(k.fail.until) && now.Sub(k.fail.probed) < spacing:
		return nil, k.fail.err
	}
	// During a pause this flight will most likely find the same secret and end
	// with the cached error; it is how a new secret is noticed at once, without
	// every caller reading the secret's file.
	k.fail.probed = now
	return k.launch(c.lease), nil
}

// refresh fetches the successor of a token that is still good. Its failure is
// nobody's error yet.
func (k *keeper) refresh(c *credential) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.flight != nil || k.cur.Load() != c || time.Now().Before(k.fail.rest) {
		return
	}
	k.launch(c.lease)
}

// launch starts a flight over l. The caller holds k.mu and has seen that none is up.
func (k *keeper) launch(l *lease) *flight {
	f := &flight{done: make(chan struct{})}
	k.flight = f
	k.running.Go(func() {
		t, err := k.ask(l, &k.fail)
		k.land(f, l, t, err)
		if errors.Is(err, rotation.ErrRetired) {
			k.abandon(l)
		}
	})
	return f
}

// land ends f. A token becomes current together with l; if l takes over from
// another lease, that one is retired.
func (k *keeper) land(f *flight, l *lease, t *token, err error) {
	k.mu.Lock()
	k.flight = nil
	f.err = err
	var old *lease
	if err == nil {
		old = k.publish(l, t)
	}
	close(f.done)
	k.mu.Unlock()
	k.retire(old, l)
}

// publish makes {l, t} current and returns the lease it replaced, nil if it was
// l before. The failures of the old half do not count against the new one. The
// caller holds k.mu and retires the lease after giving it back.
func (k *keeper) publish(l *lease, t *token) (replaced *lease) {
	old := k.cur.Load().lease
	k.cur.Store(&credential{lease: l, token: t})
	k.fail = failure{}
	if old == l {
		return nil
	}
	return old
}

// retire gives back a lease that l has replaced; requests in flight keep it until they are over.
func (k *keeper) retire(old, l *lease) {
	if old == nil {
		return
	}
	k.count.swaps.Add(1)
	k.Logger.Info("TLS identity taken over", l.describe(k.settings)...)
	k.Observer(Event{Kind: EventSwap})
	old.done()
}

// invalidate forgets t if it is still the one handed out: a 401 that arrives
// late must not cost the token that has replaced it meanwhile.
func (k *keeper) invalidate(t *token) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.cur.Load(); c.token == t {
		k.cur.Store(&credential{lease: c.lease})
	}
}

// ask sends one token request over l, within the limits, and keeps the books in
// fail. While that holds off, it only looks whether the secret or key has changed.
func (k *keeper) ask(l *lease, fail *failure) (*token, error) {
	p, err := k.prove(k.life)
	if err != nil {
		return nil, k.failed(fail, &AuthError{Temporary: true, Err: err}, [sha256.Size]byte{})
	}
	if err := k.held(fail, p.digest); err != nil {
		return nil, err
	}
	if err := pace.Sleep(k.life, k.reserve()); err != nil {
		return nil, ErrClosed
	}
	// Counted whatever comes of it: these are the requests the endpoint has seen.
	start := time.Now()
	t, err := k.fetch(k.life, l, p, &k.clock)
	k.count.fetches.Add(1)
	k.Observer(Event{Kind: EventToken, Took: time.Since(start), Err: err})
	if err != nil {
		k.count.fetchFailures.Add(1)
	}
	switch {
	case err == nil:
		k.recovered(fail)
		k.Logger.Info("access token acquired", "client_id", k.ClientID, "expires_in", t.life, "serial", l.serial)
		return t, nil
	case k.life.Err() != nil:
		return nil, ErrClosed
	}
	auth, ok := errors.AsType[*AuthError](err)
	if !ok {
		auth = &AuthError{Err: err}
	}
	return nil, k.failed(fail, auth, p.digest)
}

// held returns the cached failure while it holds for this secret or key.
func (k *keeper) held(fail *failure, digest [sha256.Size]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().Before(fail.until) && fail.proof == digest {
		return fail.err
	}
	return nil
}

// reserve takes the next slot for a token request and returns the wait for it.
func (k *keeper) reserve() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	at := k.next
	if at.Before(now) {
		at = now
	}
	k.next = at.Add(spacing)
	return at.Sub(now)
}

// failed opens or lengthens the negative cache and returns what it will answer.
func (k *keeper) failed(fail *failure, e *AuthError, digest [sha256.Size]byte) error {
	k.mu.Lock()
	// The pauses of another secret say nothing about this one.
	if fail.proof != digest {
		*fail = failure{proof: digest}
	}
	fail.count++
	now := time.Now()
	rest := backoff(e, fail.count, k.jitter())
	told := *e // the observer has e, and may look at it at any time
	told.RetryAfter = hold(e, rest)
	fail.err, fail.probed, fail.until, fail.rest = &told, now, now.Add(told.RetryAfter), now.Add(rest)
	n := fail.count
	k.mu.Unlock()
	k.tell(&told, n)
	return &told
}

// tell logs the n-th failure in a row: an outage is one line when it begins, and
// one when it ends (recovered); what is between them is for debugging.
func (k *keeper) tell(e *AuthError, n int) {
	log := k.Logger.With("client_id", k.ClientID, "status", e.Status, "failures", n, "err", e)
	switch {
	case n > 1:
		log.Debug("token request failed again")
	case e.Status == 0:
		log.Warn("token endpoint unreachable")
	case errors.Is(e, ErrCredentials):
		log.Error("token refused")
	default:
		log.Warn("token request failed")
	}
}

// recovered logs the end of an outage, if there was one.
func (k *keeper) recovered(fail *failure) {
	k.mu.Lock()
	n := fail.count
	k.mu.Unlock()
	if n > 0 {
		k.Logger.Info("token endpoint is back", "client_id", k.ClientID, "failures", n)
	}
}

// hold is how long those who need a token hear of e instead of asking, when the
// others rest for the given time.
func hold(e *AuthError, rest time.Duration) time.Duration {
	if !e.Temporary {
		return rest
	}
	return min(rest, max(needMax, min(e.RetryAfter, maxTokenRetryAfter)))
}

// backoff is the pause after the n-th failure in a row: exponential with full
// jitter above a floor, never shorter than the endpoint asked for.
func backoff(e *AuthError, n int, u float64) time.Duration {
	low, high := failMin, failMax
	if !e.Temporary {
		low, high = refuseMin, refuseMax
	}
	span := min(high, low<<min(n, 16))
	wait := low + time.Duration(u*float64(span-low))
	return max(wait, min(e.RetryAfter, maxTokenRetryAfter))
}

// spawn runs fn in a goroutine that close joins. False means that it is too late.
func (k *keeper) spawn(fn func()) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.running.Go(fn)
	}
	return !k.closed
}

// close ends flights and takeovers, joins them and gives the identity back.
func (k *keeper) close() {
	k.mu.Lock()
	first := !k.closed
	k.closed = true
	k.mu.Unlock()
	// From here on nothing new starts: whoever starts goroutines looks at closed
	// under the lock first, so Wait sees all of them.
	k.life.end()
	k.running.Wait()
	if first {
		k.unlisten()
		k.cur.Load().lease.done()
	}
}
