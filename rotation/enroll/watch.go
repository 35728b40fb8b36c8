package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
)

// Watch delivers the stored or a new identity to yield, and then every renewed
// certificate and every changed trust bundle until ctx ends, whose error it
// returns. Until the first identity is delivered, a failure that waiting does
// not heal (a refused token, a wrong fingerprint, a directory that cannot be
// written) ends Watch at once, so that whoever starts a service learns the
// cause; an authority that is not there yet is waited for. After that nothing
// but ctx ends it. Watch may be called again, and then delivers what it has.
func (s *Source) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	if !s.busy.CompareAndSwap(false, true) {
		return errors.New("watching enrolment: the source is watched already")
	}
	defer s.busy.Store(false)
	a := &agent{Source: s, yield: yield, renewed: make(chan result[*identity], 1), fetched: make(chan result[[]*x509.Certificate], 1)}
	if err := a.start(ctx); err != nil {
		return err
	}
	return a.run(ctx)
}

// agent is one run of Watch. Its fields belong to the goroutine of Watch; the
// two jobs it starts, at most one of each, get what they need as arguments and
// answer over a channel. So a request that hangs delays nothing but itself.
type agent struct {
	*Source
	yield    func(rotation.Material) error
	cur      *identity // as published
	received time.Time

	leaf, trust alarm
	renewed     chan result[*identity]
	fetched     chan result[[]*x509.Certificate]
}

type result[T any] struct {
	value T
	err   error
}

// alarm is a wall-clock time at which a job is due.
type alarm struct {
	set, at  time.Time
	failures int   // in a row
	err      error // of the last of them
	running  bool
}

func (t *alarm) schedule(now, at time.Time) { t.set, t.at = now, at }

// due also when the clock was set back behind the moment of scheduling: the plan was made by a clock that was wrong.
func (t *alarm) due(now time.Time) bool {
	return !t.running && (!now.Before(t.at) || now.Before(t.set.Add(-time.Minute)))
}

// start publishes a first identity: the stored one if it is good, else a new
// one. The stored one comes first even when a token is at hand: tokens are
// scarce, and a fleet that restarts must not become a wave of requests.
func (a *agent) start(ctx context.Context) error {
	stored, err := a.stored(ctx)
	if err != nil {
		return err
	}
	if stored != nil {
		err := a.yield(stored.material())
		switch {
		case err == nil:
			a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "stored certificate reused", about(stored, nil)...)
			a.adopt(ctx, stored, lifetime.IssuedAt(stored.leaf().NotBefore, stored.leaf().NotAfter))
			return nil
		case a.cfg.Token == nil:
			return fmt.Errorf("publishing the stored identity: %w", err)
		}
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stored certificate refused", about(stored, err)...)
	}
	for {
		err := a.first(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), a.leaf.err) // with what it was waiting for
		}
		a.failed++
		r := retry{failures: a.failed, retryAfter: retryAfterOf(err), slow: denied(err)}
		a.notBefore = a.wall().Add(r.delay(a.random()))
		a.leaf.failures, a.leaf.err, a.leaf.at = a.failed, err, a.notBefore
		a.report()
		if !passing(err) {
			return err
		}
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "not enrolled yet", slog.Any("err", err))
	}
}

// first enrols and publishes, once.
func (a *agent) first(ctx context.Context) error {
	if err := a.pause(ctx); err != nil {
		return err
	}
	i, err := a.enrol(ctx)
	if err == nil {
		err = a.publish(i)
	}
	if err != nil {
		return err
	}
	a.failed = 0
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate enrolled", about(i, nil)...)
	a.adopt(ctx, i, a.wall())
	return nil
}

// pause keeps the distance that the last failure of a start asked for, also
// when Watch was called again in between.
func (s *Source) pause(ctx context.Context) error {
	wait := s.notBefore.Sub(s.wall())
	if s.failed == 0 || wait <= 0 || wait > 2*maxBackoff { // longer than any backoff: the clock was set back
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// stored returns a stored identity that is still valid, nil if there is none
// but a token may get one, and an error if there is no way forward.
func (a *agent) stored(ctx context.Context) (*identity, error) {
	if a.store == nil {
		if a.kept != nil && a.wall().Before(a.kept.leaf().NotAfter) {
			return a.kept, nil
		}
		return nil, nil
	}
	if err := a.store.check(); err != nil {
		return nil, err
	}
	i, err := a.store.load()
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.cfg.Token != nil:
		return nil, nil
	case err != nil && a.cfg.Token == nil:
		return nil, err
	case err != nil:
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stored identity is unusable", slog.Any("err", err))
		return nil, nil
	case !a.wall().Before(i.leaf().NotAfter):
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stored certificate has expired", about(i, nil)...)
		return nil, nil
	}
	return i, nil
}

// run works until ctx ends, and joins what it started: both requests carry ctx,
// so that the wait is short.
func (a *agent) run(ctx context.Context) error {
	defer func() {
		if a.leaf.running {
			<-a.renewed
		}
		if a.trust.running {
			<-a.fetched
		}
	}()
	for {
		now := a.wall()
		a.begin(ctx, now)
		a.report()
		timer := time.NewTimer(a.sleep(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case r := <-a.renewed:
			a.leaf.running = false
			a.onRenewed(ctx, r)
		case r := <-a.fetched:
			a.trust.running = false
			a.onFetched(ctx, r)
		case <-timer.C:
		}
		timer.Stop()
	}
}

// begin starts the jobs that are due. Each gets the identity of this moment;
// a change meanwhile is reconciled when its answer is taken.
func (a *agent) begin(ctx context.Context, now time.Time) {
	cur := a.cur
	if a.leaf.due(now) {
		a.leaf.running = true
		go func() {
			i, err := a.replace(ctx, cur)
			a.renewed <- result[*identity]{i, err}
		}()
	}
	if a.trust.due(now) {
		a.trust.running = true
		go func() {
			roots, err := a.bundle(ctx, cur.roots)
			a.fetched <- result[[]*x509.Certificate]{roots, err}
		}()
	}
}

// sleep is the time until something is due, cut into ticks because timers do not count a suspended machine's time.
func (a *agent) sleep(now time.Time) time.Duration {
	d := tick(a.life())
	for _, t := range []*alarm{&a.leaf, &a.trust} {
		if !t.running {
			d = min(d, t.at.Sub(now))
		}
	}
	return max(d, time.Millisecond)
}

func (a *agent) life() time.Duration { return a.cur.leaf().NotAfter.Sub(a.received) }

// replace gets a successor: with the current certificate, or with a token when
// that one has expired or the authority will not have it.
func (s *Source) replace(ctx context.Context, cur *identity) (*identity, error) {
	var refused error
	if s.wall().Before(cur.leaf().NotAfter) {
		i, err := s.rekey(ctx, cur)
		if !denied(err) { // success as well
			return i, err
		}
		refused = err
	}
	i, err := s.enrol(ctx)
	if err != nil {
		return nil, errors.Join(refused, err)
	}
	return i, nil
}

// onRenewed takes the answer of replace. Whatever the reason of a failure, also
// a full disk or a gate that refuses, the old identity stays in effect and
// another attempt is planned.
func (a *agent) onRenewed(ctx context.Context, r result[*identity]) {
	err := r.err
	if err == nil {
		if r.value.roots == nil {
			r.value.roots = a.cur.roots // as they are now, not as they were when the job began
		}
		err = a.publish(r.value)
	}
	now := a.wall()
	if err == nil {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate renewed", about(r.value, nil)...)
		a.adopt(ctx, r.value, now)
		return
	}
	if ctx.Err() != nil {
		return
	}
	a.leaf.failures, a.leaf.err = a.leaf.failures+1, err
	remaining := a.cur.leaf().NotAfter.Sub(now)
	a.leaf.schedule(now, now.Add(retry{
		failures: a.leaf.failures, life: a.life(), remaining: remaining,
		retryAfter: retryAfterOf(err), slow: denied(err) || errors.Is(err, ErrNoToken),
	}.delay(a.random())))
	level := slog.LevelWarn
	if remaining <= 0 || denied(err) || r.err == nil { // waiting alone will not heal these
		level = slog.LevelError
	}
	a.cfg.Logger.LogAttrs(ctx, level, "certificate not renewed", about(a.cur, err)...)
}

// onFetched takes the answer of bundle. A changed bundle is published at once,
// with the same certificate: peers that renewed early already use it.
func (a *agent) onFetched(ctx context.Context, r result[[]*x509.Certificate]) {
	now := a.wall()
	every := trustEvery(a.cfg.TrustRefresh, a.life())
	err, changed := r.err, false
	if err == nil && stepapi.TrustDigest(r.value) != stepapi.TrustDigest(a.cur.roots) {
		changed = true
		i := &identity{chain: a.cur.chain, key: a.cur.key, roots: r.value}
		if err = a.publish(i); err == nil {
			a.cur, a.kept = i, i
			a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "trust bundle changed", about(i, nil)...)
			if i.verify(now) != nil { // whoever has this bundle will refuse us
				a.leaf.schedule(now, now)
			}
		}
	}
	if err == nil {
		a.trust.failures, a.trust.err = 0, nil
		a.trust.schedule(now, now.Add(spread(every, a.random())))
		return
	}
	if ctx.Err() != nil {
		return
	}
	a.trust.failures, a.trust.err = a.trust.failures+1, err
	wait := retry{failures: a.trust.failures, life: a.life(), retryAfter: retryAfterOf(err), slow: denied(err)}.delay(a.random())
	a.trust.schedule(now, now.Add(min(wait, every)))
	level := slog.LevelWarn
	if changed {
		level = slog.LevelError
	}
	a.cfg.Logger.LogAttrs(ctx, level, "trust bundle not refreshed", about(a.cur, err)...)
}

// publish stores i and then yields it. A refusal takes the stored one back, so
// that a restart does not begin with what nobody would have.
func (a *agent) publish(i *identity) error {
	undo := func() error { return nil }
	if a.store != nil {
		var err error
		if undo, err = a.store.save(i); err != nil {
			return err
		}
	}
	if err := a.yield(i.material()); err != nil {
		return errors.Join(fmt.Errorf("publishing the identity: %w", err), undo())
	}
	return nil
}

// adopt makes i, which is published, the current identity and plans its renewal.
func (a *agent) adopt(ctx context.Context, i *identity, received time.Time) {
	now := a.wall()
	a.cur, a.received, a.kept = i, received, i
	a.leaf.failures, a.leaf.err = 0, nil
	a.leaf.schedule(now, lifetime.RenewAt(received, i.leaf().NotAfter, a.random()))
	if a.trust.at.IsZero() { // soon, but not with everyone else that started now
		first := min(tick(a.life()), trustEvery(a.cfg.TrustRefresh, a.life()))
		a.trust.schedule(now, now.Add(time.Duration(a.random()*float64(first))))
	}
	if err := a.pending.forget(); err != nil {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "key of a finished enrolment not removed", about(i, err)...)
	}
}

// about names a certificate by what anyone may know about it.
func about(i *identity, err error) []slog.Attr {
	leaf := i.leaf()
	attrs := []slog.Attr{
		slog.String("service", printable(leaf.Subject.CommonName)),
		slog.String("serial", pemfile.Serial(leaf)),
		slog.String("fingerprint", pemfile.Fingerprint(leaf)),
		slog.Time("not_after", leaf.NotAfter),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	return attrs
}
