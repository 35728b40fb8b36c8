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

	"github.com/artstore/artstore-pki/internal/stepapi"
)

// bundle is what peers are verified against. It is immutable.
type bundle struct {
	roots   []*x509.Certificate
	pool    *x509.CertPool
	revoked *revocations
	trust   string // digest of the roots
}

func newBundle(roots []*x509.Certificate, lists *revocations) bundle {
	return bundle{roots: slices.Clone(roots), pool: poolOf(roots), revoked: lists, trust: stepapi.TrustDigest(roots)}
}

// admit refuses what is revoked; it is half of every VerifyConnection.
func (b *bundle) admit(chains [][]*x509.Certificate) error { return b.revoked.refuse(chains) }

// TrustFiles follows a trust bundle that has no certificate beside it, for
// [OpenTrust] and as the trust side of [Merge]: ca holds the roots in PEM, and crl,
// if it is not "", one revocation list per issuer. Changes are noticed as with [Files].
func TrustFiles(ca, crl string) Source { return Files(FileSet{CA: ca, CRL: crl}) }

// TrustConfig configures [OpenTrust].
type TrustConfig struct {
	// Source delivers the roots and, if there are any, revocation lists;
	// certificates in it are ignored. Required. See [TrustFiles].
	Source Source
	Logger *slog.Logger // default slog.Default()
}

// Trust is a trust bundle that is followed like the one of an [Identity]: for
// servers that chain elsewhere than the own certificate ([TransportOptions.Trust]).
// The rules for its content are those of [Material]: a bundle that is empty or
// holds a certificate that is no CA is refused, and the last good one stays. All
// methods are safe for concurrent use.
type Trust struct {
	log     *slog.Logger
	current atomic.Pointer[bundle]
	started chan struct{}
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	publishing sync.Mutex // one candidate at a time

	mu      sync.Mutex // guards what follows
	lists   *revocations
	lastErr error
	users   map[*Transport]struct{}
}

// TrustStatus is the state of a [Trust].
type TrustStatus struct {
	Roots        int    `json:"roots"`         // certificates in the bundle
	TrustDigest  string `json:"trust_digest"`  // hex
	RevokedLists int    `json:"revoked_lists"` // revocation lists in effect
	RevokedStale bool   `json:"revoked_stale"` // one is past its NextUpdate; it is enforced all the same
	LastError    string `json:"last_error,omitempty"`
}

// OpenTrust starts to follow the source and waits for its first good bundle. ctx
// bounds this wait only. A source that gives up before that is not tried again:
// OpenTrust returns its error.
func OpenTrust(ctx context.Context, cfg TrustConfig) (*Trust, error) {
	if cfg.Source == nil {
		return nil, errors.New("opening trust bundle: Source is missing")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	t := &Trust{log: cfg.Logger, started: make(chan struct{}), users: map[*Transport]struct{}{}}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	failed := make(chan error, 1)
	t.wg.Go(func() { t.follow(running, cfg.Source, failed) })
	select {
	case <-t.started:
		return t, nil
	case err := <-failed:
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

// Close stops following the source and joins. The last bundle stays in effect for
// the transports that have it. It is idempotent and returns nil.
func (t *Trust) Close() error {
	t.cancel()
	t.wg.Wait()
	return nil
}

// Roots is the bundle in effect.
func (t *Trust) Roots() []*x509.Certificate { return slices.Clone(t.current.Load().roots) }

// Status reports the state of the bundle.
func (t *Trust) Status() TrustStatus {
	b := t.current.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	return TrustStatus{
		Roots: len(b.roots), TrustDigest: b.trust, RevokedLists: len(t.lists.lists),
		RevokedStale: t.lists.stale(time.Now()) != nil, LastError: text(t.lastErr),
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

// follow keeps the source running. failed receives the error of a source that
// gives up before the first bundle.
func (t *Trust) follow(ctx context.Context, src Source, failed chan<- error) {
	pause := minRestart
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if r, ok := src.(reporter); ok {
			err = r.watch(ctx, t.offer, t)
		} else {
			err = src.Watch(ctx, t.offer)
		}
		if err == nil {
			err = errors.New("the source stopped")
		}
		if t.current.Load() == nil {
			failed <- err
			return
		}
		if ctx.Err() != nil {
			return
		}
		t.failing(err)
		if time.Since(began) > maxRestart {
			pause = minRestart
		}
		sleep(ctx, pause)
		pause = min(2*pause, maxRestart)
	}
}

// offer is the yield of the source.
func (t *Trust) offer(m Material) error {
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
		t.failing(err)
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
		user.renewTrust()
	}
	return nil
}

// failing implements observer. A failure that repeats itself is told once.
func (t *Trust) failing(err error) {
	t.mu.Lock()
	known := err == nil || text(t.lastErr) == err.Error()
	t.lastErr = err
	t.mu.Unlock()
	if !known {
		t.log.Warn("trust bundle not refreshed", "err", err)
	}
}

// watching implements observer.
func (t *Trust) watching(_ string, why error) {
	if why != nil {
		t.log.Warn("file notification unavailable, polling only", "err", why)
	}
}

// uses has a transport hear of changes, until it is closed.
func (t *Trust) uses(user *Transport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[user] = struct{}{}
}

func (t *Trust) leaves(user *Transport) {
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
