package rotation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/rotation/status"
)

// Trust is a trust bundle that is followed like the one of an [Identity], for servers
// whose certificates have other roots than the own one ([TransportOptions.Trust]). The
// rules of [Material] apply to its content: a bundle that is empty or has a
// certificate that is no CA is refused, and the last good one stays. All methods are safe
// for concurrent use.
type Trust struct {
	log     *slog.Logger
	current atomic.Pointer[bundle]
	started chan struct{}
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	publishing sync.Mutex // one candidate at a time

	mu      sync.Mutex   // guards the fields below
	lists   *revocations // in effect, with the newest signatures
	lastErr error
	users   map[*Transport]struct{}
}

// OpenTrust starts to follow the source, for instance files.Source with CA and CRL only,
// and waits for its first good bundle. Certificates that the source delivers are
// ignored, and cfg.DrainTimeout too: the Identity of a transport has its own. ctx bounds this wait
// only. If the source gives up before, OpenTrust returns its error.
func OpenTrust(ctx context.Context, cfg Config) (*Trust, error) {
	if cfg.Source == nil {
		return nil, errors.New("opening trust bundle: Source is missing")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	t := &Trust{log: cfg.Logger, started: make(chan struct{}), users: map[*Transport]struct{}{}}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	runner := newSourceRunner(cfg.Source, t.propose, trustObserver{t}, func() bool { return t.current.Load() != nil })
	t.wg.Go(func() { runner.run(running) })
	select {
	case <-t.started:
		return t, nil
	case err := <-runner.failed:
		_ = t.Close()
		return nil, fmt.Errorf("opening trust bundle: %w", err)
	case <-ctx.Done():
		_ = t.Close()
		if last := t.failure(); last != nil {
			return nil, fmt.Errorf("opening trust bundle: %w: %w", ctx.Err(), last)
		}
		return nil, fmt.Errorf("opening trust bundle: %w", ctx.Err())
	}
}

// Close stops following the source and waits for its goroutine. The last bundle stays in
// effect for the transports that use it. It may be called again, and returns nil.
func (t *Trust) Close() error {
	t.cancel()
	t.wg.Wait()
	return nil
}

// Roots returns the bundle in effect.
func (t *Trust) Roots() []*x509.Certificate { return slices.Clone(t.current.Load().roots) }

// Status reports the state of the bundle.
func (t *Trust) Status() status.Trust {
	b := t.current.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return status.Trust{
		Roots: len(b.roots), TrustDigest: b.trust, RevokedLists: len(t.lists.lists),
		RevokedStale: t.lists.stale(time.Now()) != nil, LastError: errtext.Of(t.lastErr),
	}
}

// Check fails when a revocation list is past its NextUpdate, as [Identity.Check] does.
func (t *Trust) Check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.lists.stale(time.Now()); err != nil {
		return fmt.Errorf("checking trust bundle: %w", err)
	}
	return nil
}

func (t *Trust) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lastErr
}

// propose is the yield of the source. When it returns nil, all transports that use the
// bundle have it, and their connections to revoked servers are cut.
func (t *Trust) propose(m Material) error {
	t.publishing.Lock()
	defer t.publishing.Unlock()
	t.mu.Lock()
	lists := t.lists
	t.mu.Unlock()
	err := checkRoots(m.Roots)
	if err == nil {
		lists, err = readRevocations(m, nil, lists, time.Now())
	}
	if err != nil {
		err = fmt.Errorf("refusing trust bundle: %w", err)
		t.noteFailure(err)
		return err
	}
	b, old := newBundle(m.Roots, lists), t.current.Load()
	t.mu.Lock()
	t.lists, t.lastErr = lists, nil
	t.mu.Unlock()
	if old != nil && old.trust == b.trust && old.revoked.digest == b.revoked.digest {
		return nil
	}
	t.current.Store(&b)
	t.log.Info("trust bundle changed", "roots", len(b.roots), "trust_digest", b.trust, "revoked_lists", len(lists.lists), "version", m.Version)
	if old == nil {
		close(t.started)
		return nil
	}
	for _, user := range t.transports() {
		user.applyTrust()
	}
	return nil
}

// noteFailure records a failure of the source or a refused candidate; nil clears it.
// A failure that repeats itself is logged once.
func (t *Trust) noteFailure(err error) {
	t.mu.Lock()
	known := err == nil || errtext.Of(t.lastErr) == err.Error()
	t.lastErr = err
	t.mu.Unlock()
	if !known {
		t.log.Warn("trust bundle not refreshed", "err", err)
	}
}

// trustObserver keeps the methods of [Observer] off the Trust.
type trustObserver struct{ t *Trust }

func (o trustObserver) Mode(_ string, why error) { o.t.noteMode(why) }
func (o trustObserver) Failed(err error)         { o.t.noteFailure(err) }

// noteMode logs why a file source can only poll.
func (t *Trust) noteMode(why error) {
	if why != nil {
		t.log.Warn("changes are noticed by polling only", "err", why)
	}
}

func (t *Trust) addUser(user *Transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[user] = struct{}{}
}

func (t *Trust) removeUser(user *Transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.users, user)
}

func (t *Trust) transports() (all []*Transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for user := range t.users {
		all = append(all, user)
	}
	return all
}
