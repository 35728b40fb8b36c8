package ingestclient

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/wallclock"
	"github.com/artstore/artstore-pki/rotation"
)

// Limits on asking the token endpoint.
const (
	// spacing is the least time between two token requests of a client, for any reason: there
	// are never more than five a second.
	spacing = 220 * time.Millisecond
	// Backoff with full jitter: failMin to failMax after temporary failures,
	// refuseMin to refuseMax after refusals, which only an operator can end.
	failMin, failMax     = spacing, 30 * time.Second
	refuseMin, refuseMax = 5 * time.Second, 2 * time.Minute
	// A caller without a token waits no longer than this after a temporary failure,
	// so that it notices within a second that the endpoint is back.
	needMax            = 900 * time.Millisecond
	maxTokenRetryAfter = 5 * time.Minute
)

// tokenManager holds the current credential and renews both halves of it: the
// lease of an identity and its token.
//
// Taking a cached token needs no lock. There is one token request at a time, and
// it runs on a context of the client. So the deadline of one caller cannot end a
// request that others wait for (a deadline shorter than the endpoint's latency
// would end every request, for ever), and each caller waits until its own
// deadline at most.
type tokenManager struct {
	*settings
	id    leaseSource
	ctx   context.Context // of everything that outlives a caller; ends with shutdown
	end   context.CancelFunc
	count *counters
	cur   atomic.Pointer[credential]
	wake  chan struct{} // a rotation arrived while a handover waits
	clock clock         // the endpoint's; only the running tokenFetch uses it

	mu              sync.Mutex // guards the rest; never held across I/O
	inflight        *tokenFetch
	fail            failure
	next            time.Time // no token request before this
	handoverRunning bool      // the goroutine of handover runs
	handoverPending bool      // there was a rotation since it looked last
	closed          bool
	running         sync.WaitGroup
	unlisten        func()
}

// tokenFetch is one token request, for which any number of callers wait.
type tokenFetch struct {
	done chan struct{}
	err  error // valid once done is closed
}

// failure is the negative cache: the error that callers get until the endpoint may be asked again.
type failure struct {
	err    error
	count  int
	until  time.Time         // for callers without a token
	rest   time.Time         // for refreshes, while the old token still works
	probed time.Time         // when the secret was last looked at for a change
	digest [sha256.Size]byte // of the secret or key that was refused
}

func newTokenManager(s *settings, id leaseSource, count *counters) *tokenManager {
	m := &tokenManager{settings: s, id: id, count: count, wake: make(chan struct{}, 1)}
	m.ctx, m.end = context.WithCancel(context.Background()) //nolint:forbidigo // New takes no context: a client outlives the call that makes it
	// No goroutine yet and no token: both come with the first need.
	first := id.lease()
	m.cur.Store(&credential{lease: first})
	m.unlisten = id.subscribe(m.onRotation)
	// Nothing reported a rotation that came between the two lines above.
	if l := id.lease(); l.number != first.number {
		m.onRotation()
		l.unref()
	} else {
		l.unref()
	}
	return m
}

// get returns the current credential with a token that can be sent. The caller
// owns a reference to its lease and ends it with unref.
func (m *tokenManager) get(ctx context.Context) (*credential, error) {
	for {
		c := m.cur.Load()
		switch c.token.stateAt(time.Now()) {
		case fresh:
			// Enabled is asked first: with the level off, that is all the line costs.
			if m.Logger.Enabled(ctx, slog.LevelDebug) {
				m.Logger.DebugContext(ctx, "token from cache", "client_id", m.ClientID)
			}
		case refreshDue:
			m.refresh(c)
		case expired:
			if err := m.waitFetch(ctx, c); err != nil {
				return nil, err
			}
			continue
		}
		if c.lease.acquire() { // fails only if it was replaced since the load
			return c, nil
		}
	}
}

// waitFetch joins the fetch for c, starting it if need be, and returns when it is
// over or ctx is. The error is the fetch's, or the cached one.
func (m *tokenManager) waitFetch(ctx context.Context, c *credential) error {
	f, err := m.joinFetch(c)
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

// joinFetch returns the fetch to wait for. A nil fetch without an error means that
// another credential was published since c was loaded: the caller loads again.
func (m *tokenManager) joinFetch(c *credential) (*tokenFetch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	switch {
	case m.closed:
		return nil, ErrClosed
	case m.inflight != nil:
		// This includes the fetch of a handover: its token is as good for the
		// caller, and two requests at a time are never sent.
		return m.inflight, nil
	case m.cur.Load() != c:
		return nil, nil
	case now.Before(m.fail.until) && now.Sub(m.fail.probed) < spacing:
		return nil, m.fail.err
	}
	// During a pause this fetch reads the secret, most likely finds the same one, and
	// ends with the cached error. So a new secret is noticed at once, and not every
	// caller reads the secret's file.
	m.fail.probed = now
	return m.startFetch(c.lease), nil
}

// refresh fetches the successor of a token that still works. If that fails, callers
// get no error: they go on with the old token.
func (m *tokenManager) refresh(c *credential) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.inflight != nil || m.cur.Load() != c || time.Now().Before(m.fail.rest) {
		return
	}
	m.startFetch(c.lease)
}

// startFetch starts a token request over l. The caller holds m.mu and has checked
// that none is under way.
func (m *tokenManager) startFetch(l *lease) *tokenFetch {
	f := &tokenFetch{done: make(chan struct{})}
	m.inflight = f
	m.running.Go(func() {
		t, err := m.requestToken(l, &m.fail)
		m.finishFetch(f, l, t, err)
		if errors.Is(err, rotation.ErrRetired) {
			m.dropRetired(l)
		}
	})
	return f
}

// finishFetch ends f. The token becomes current together with l; a lease that l
// replaces is retired.
func (m *tokenManager) finishFetch(f *tokenFetch, l *lease, t *token, err error) {
	m.mu.Lock()
	m.inflight = nil
	f.err = err
	var old *lease
	if err == nil {
		old = m.publish(l, t)
	}
	close(f.done)
	m.mu.Unlock()
	m.retire(old, l)
}

// publish makes {l, t} current and returns the lease it replaced, nil if it was
// l before. The failures of the old half do not count against the new one. The
// caller holds m.mu and retires the lease after giving it back.
func (m *tokenManager) publish(l *lease, t *token) (replaced *lease) {
	old := m.cur.Load().lease
	m.cur.Store(&credential{lease: l, token: t})
	m.fail = failure{}
	if old == l {
		return nil
	}
	return old
}

// retire gives back a lease that l has replaced; requests in flight keep it until they are over.
func (m *tokenManager) retire(old, l *lease) {
	if old == nil {
		return
	}
	m.count.swaps.Add(1)
	m.Logger.Info("TLS identity taken over", l.describe(m.settings)...)
	m.Observer.Swap()
	old.unref()
}

// invalidate forgets t if it is still the one handed out: a 401 that arrives
// late must not cost the token that has replaced it meanwhile.
func (m *tokenManager) invalidate(t *token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.cur.Load(); c.token == t {
		m.cur.Store(&credential{lease: c.lease})
	}
}

// requestToken sends one token request over l, within the limits, and records a
// failure in fail. During the pause after one, it only checks whether the secret or
// the key has changed.
func (m *tokenManager) requestToken(l *lease, fail *failure) (*token, error) {
	p, err := m.loadCredential(m.ctx)
	if err != nil {
		return nil, m.failed(fail, &AuthError{Temporary: true, Err: err}, [sha256.Size]byte{})
	}
	if err := m.cachedFailure(fail, p.digest); err != nil {
		return nil, err
	}
	if err := wallclock.Sleep(m.ctx, m.reserve()); err != nil {
		return nil, ErrClosed
	}
	// Counted with any outcome: this is the number of requests that the endpoint got.
	start := time.Now()
	t, err := m.fetch(m.ctx, l, p, &m.clock)
	m.count.fetches.Add(1)
	m.Observer.Token(time.Since(start), err)
	if err != nil {
		m.count.fetchFailures.Add(1)
	}
	switch {
	case err == nil:
		m.recovered(fail)
		m.Logger.Info("access token acquired", "client_id", m.ClientID, "expires_in", t.lifetime, "serial", l.serial)
		return t, nil
	case m.ctx.Err() != nil:
		return nil, ErrClosed
	}
	auth, ok := errors.AsType[*AuthError](err)
	if !ok {
		auth = &AuthError{Err: err}
	}
	return nil, m.failed(fail, auth, p.digest)
}

// cachedFailure returns the cached error as long as it is valid for this secret or key.
func (m *tokenManager) cachedFailure(fail *failure, digest [sha256.Size]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().Before(fail.until) && fail.digest == digest {
		return fail.err
	}
	return nil
}

// reserve takes the next slot for a token request and returns the wait for it.
func (m *tokenManager) reserve() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	at := m.next
	if at.Before(now) {
		at = now
	}
	m.next = at.Add(spacing)
	return at.Sub(now)
}

// failed caches the failure, with a longer pause for each in a row, and returns the
// error that callers get meanwhile.
func (m *tokenManager) failed(fail *failure, e *AuthError, digest [sha256.Size]byte) error {
	m.mu.Lock()
	// The failures of another secret do not count for this one.
	if fail.digest != digest {
		*fail = failure{digest: digest}
	}
	fail.count++
	now := time.Now()
	rest := tokenPause(e, fail.count, m.jitter())
	cached := *e // a copy: the observer has e, and may read it at any time
	cached.RetryAfter = holdFor(e, rest)
	fail.err, fail.probed, fail.until, fail.rest = &cached, now, now.Add(cached.RetryAfter), now.Add(rest)
	n := fail.count
	m.mu.Unlock()
	m.logFailure(&cached, n)
	return &cached
}

// logFailure logs the n-th failure in a row: an outage is one line when it begins and
// one when it ends (recovered). The failures between them are logged at debug level.
func (m *tokenManager) logFailure(e *AuthError, n int) {
	log := m.Logger.With("client_id", m.ClientID, "status", e.Status, "failures", n, "err", e)
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
func (m *tokenManager) recovered(fail *failure) {
	m.mu.Lock()
	n := fail.count
	m.mu.Unlock()
	if n > 0 {
		m.Logger.Info("token endpoint is back", "client_id", m.ClientID, "failures", n)
	}
}

// holdFor is how long callers without a token get e instead of asking again, if the
// pause for refreshes is rest.
func holdFor(e *AuthError, rest time.Duration) time.Duration {
	if !e.Temporary {
		return rest
	}
	return min(rest, max(needMax, min(e.RetryAfter, maxTokenRetryAfter)))
}

// tokenPause is the pause after the n-th failure in a row: exponential with full
// jitter above a floor, never shorter than the endpoint asked for.
func tokenPause(e *AuthError, n int, u float64) time.Duration {
	low, high := failMin, failMax
	if !e.Temporary {
		low, high = refuseMin, refuseMax
	}
	wait := backoff.Between(low, backoff.Step(low, high, n), u)
	return max(wait, min(e.RetryAfter, maxTokenRetryAfter))
}

// spawn runs fn in a goroutine that shutdown joins. False means that the client is closed.
func (m *tokenManager) spawn(fn func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.running.Go(fn)
	}
	return !m.closed
}

// shutdown ends token requests and handovers, joins their goroutines and returns the
// lease of the identity.
func (m *tokenManager) shutdown() {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	m.mu.Unlock()
	// From here on no goroutine starts: each start checks closed under the lock
	// first, so Wait sees all of them.
	m.end()
	m.running.Wait()
	if first {
		m.unlisten()
		m.cur.Load().lease.unref()
	}
}
