package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/rotation"
)

// Watch yields the stored identity or a new one, and then every renewed certificate, every
// changed trust bundle and all newer lists, until ctx ends. It returns the error of ctx.
//
// Before the first identity, Watch ends at once with a failure that needs an operator: a
// refused token, a wrong fingerprint, a directory that cannot be written. It waits for an
// authority that cannot be reached. After the first identity, only ctx ends it. Watch may be
// called again, and then yields the identity that it has.
func (s *Source) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return s.WatchObserved(ctx, yield, nil)
}

// WatchObserved is Watch for a rotation.Identity. The status of that says in WatchMode whether
// the authority tells of changes ("watch+poll") or is asked from time to time ("poll"), and in
// WatchError why. o may be nil.
func (s *Source) WatchObserved(ctx context.Context, yield func(rotation.Material) error, o rotation.Observer) error {
	if !s.busy.CompareAndSwap(false, true) {
		return errors.New("watching enrolment: the source is watched already")
	}
	defer s.busy.Store(false)
	if s.store != nil {
		release, err := s.store.acquire()
		if err != nil {
			return err
		}
		defer release()
	}
	a := &agent{
		Source: s, yield: yield, observer: o,
		leaf: newTask[*identity](), trust: newTask[[]*x509.Certificate](), lists: newTask[fetchedLists](),
		watch: watching{task: newTask[watchAnswer](), most: mostWait},
	}
	if err := a.start(ctx); err != nil {
		return err
	}
	return a.run(ctx)
}

// agent is one run of Watch. Its fields belong to the goroutine of Watch. It runs at most
// one task of each kind; a task gets its input as arguments, and its result comes over a
// channel. So a request that hangs delays only its own task.
type agent struct {
	*Source
	yield          func(rotation.Material) error
	observer       rotation.Observer // may be nil
	cur            *identity         // in effect, or expired with a newer bundle or lists
	received       time.Time         // when cur was received, by our clock
	issued         time.Time         // when cur was issued, by the authority's clock
	renewalPoint   float64           // within the window of renewal, in [0, 1)
	assumed        time.Duration     // offset of the authority's clock when the renewal was planned
	lastLoggedSkew time.Duration     // the offset that was logged last
	unlisted       bool              // it was logged that the authority serves no lists
	tag            string            // of the answer with the lists in effect
	outage         outage            // of the authority, as far as is known

	leaf  task[*identity]
	trust task[[]*x509.Certificate]
	lists task[fetchedLists]
	watch watching
}

// start publishes a first identity: the stored one if it is valid, else a new one. It
// prefers the stored one even if there is a token, because a token can be used once, and a
// fleet that restarts must not send a request each.
func (a *agent) start(ctx context.Context) error {
	var over *identity // the stored one, if it has expired: the authority may still renew it
	stored, err := a.stored(ctx)
	if err != nil {
		return err
	}
	a.listHolder.Store(stored)
	before := stored // its successor takes over the revoked certificates that it knows
	if stored != nil && !a.wallNow().Before(stored.leaf().NotAfter) {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stored certificate has expired", logAttrs(stored, nil)...)
		over, stored = stored, nil
	}
	if stored != nil {
		err := a.yield(stored.material())
		switch {
		case err == nil:
			a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "stored certificate reused", logAttrs(stored, nil)...)
			issued := lifetime.IssuedAt(stored.leaf().NotBefore, stored.leaf().NotAfter)
			a.install(ctx, stored, issued, issued)
			a.renewRevoked(ctx, a.wallNow()) // its lists may say so, and there may be a new token
			a.recordOrigin(ctx, stored)
			return nil
		case a.cfg.Token == nil:
			return fmt.Errorf("publishing the stored identity: %w", err)
		}
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stored certificate refused", logAttrs(stored, err)...)
	}
	for {
		err := a.first(ctx, over, before)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), a.leaf.err) // with the last failure
		}
		a.failed++
		now, r := a.wallNow(), retry{failures: a.failed, retryAfter: retryAfterOf(err), slow: isDenied(err)}
		wait := r.delay(a.random())
		if a.outage.note(now, err); a.outage.lasts(now, tick(0)) {
			wait = max(wait, tick(0))
		}
		a.notBefore = now.Add(wait)
		a.leaf.failures, a.leaf.err, a.leaf.at = a.failed, err, a.notBefore
		a.report()
		if !isTemporary(err) {
			return err
		}
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "not enrolled yet", slog.Any("err", err))
	}
}

// first makes one attempt to get a certificate and publish it: by the expired certificate
// over, or by a token if over is nil. before is the stored identity, or nil.
func (a *agent) first(ctx context.Context, over, before *identity) (err error) {
	if err := a.pause(ctx); err != nil {
		return err
	}
	var i *identity
	tag := ""
	if over == nil {
		i, tag, err = a.enrolWithLists(ctx, before, false)
	} else if i, err = a.replace(ctx, over); err == nil {
		err = i.carryOver(before, a.wallNow())
	}
	if err == nil {
		err = a.publish(i)
	}
	if err != nil {
		return err
	}
	a.failed, a.tag = 0, tag
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate obtained", logAttrs(i, nil)...)
	a.install(ctx, i, a.wallNow(), a.authority())
	a.recordOrigin(ctx, i)
	return nil
}

// pause waits until notBefore, which the last failed attempt has set, maybe in an earlier
// call of Watch.
func (s *Source) pause(ctx context.Context) error {
	wait := s.notBefore.Sub(s.wallNow())
	if s.failed == 0 || wait <= 0 || wait > 2*maxAsked { // longer than any pause: the clock was set back
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

// stored returns the stored identity, expired or not. It returns nil if there is none that
// can be used, and Config.Token may give a token; without Config.Token that is an error.
func (a *agent) stored(ctx context.Context) (*identity, error) {
	if a.store == nil {
		return a.kept, nil
	}
	if err := a.store.check(); err != nil {
		return nil, err
	}
	i, err := a.store.load()
	switch {
	case errors.Is(err, fs.ErrNotExist) && a.cfg.Token != nil:
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no certificate is stored in %s, and the first one takes a token: %w", a.store.dir, ErrNoToken)
	case err != nil && a.cfg.Token == nil:
		return nil, err
	case err != nil:
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stored identity is unusable", slog.Any("err", err))
		return nil, nil
	}
	return i, nil
}

// logAttrs returns the attributes of a log line about a certificate. err may be nil.
func logAttrs(i *identity, err error) []slog.Attr {
	leaf := i.leaf()
	attrs := []slog.Attr{
		slog.String("service", oneLine(leaf.Subject.CommonName)),
		slog.String("serial", certs.Serial(leaf)),
		slog.String("fingerprint", certs.Fingerprint(leaf)),
		slog.Time("not_after", leaf.NotAfter),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	return attrs
}
