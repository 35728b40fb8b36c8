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
	if s.store != nil {
		release, err := s.store.acquire()
		if err != nil {
			return err
		}
		defer release()
	}
	a := &agent{
		Source: s, yield: yield,
		leaf: newTask[*identity](), trust: newTask[[]*x509.Certificate](), lists: newTask[fetchedLists](),
	}
	if err := a.start(ctx); err != nil {
		return err
	}
	return a.run(ctx)
}

// agent is one run of Watch. Its fields belong to the goroutine of Watch; the
// jobs it starts, at most one of each kind, get what they need as arguments and
// answer over a channel. So a request that hangs delays nothing but itself.
type agent struct {
	*Source
	yield          func(rotation.Material) error
	cur            *identity     // as published, or an expired one with newer trust
	received       time.Time     // by our clock
	issued         time.Time     // by the authority's
	renewalPoint   float64       // of the window of renewal, in [0, 1)
	assumed        time.Duration // offset of the authority's clock that the plan was made with
	lastLoggedSkew time.Duration // that was last logged
	unlisted       bool          // it was said that the authority has no lists
	tag            string        // of the lists in effect

	leaf  task[*identity]
	trust task[[]*x509.Certificate]
	lists task[fetchedLists]
}

// start publishes a first identity: the stored one if it is good, else a new
// one. The stored one comes first even when a token is at hand: tokens are
// scarce, and a fleet that restarts must not become a wave of requests.
func (a *agent) start(ctx context.Context) error {
	var over *identity // expired, and perhaps still good for a renewal
	stored, err := a.stored(ctx)
	if err != nil {
		return err
	}
	a.listHolder.Store(stored)
	before := stored // what it knows of revoked certificates holds for whatever comes
	if stored != nil && !a.wall().Before(stored.leaf().NotAfter) {
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
			return errors.Join(ctx.Err(), a.leaf.err) // with what it was waiting for
		}
		a.failed++
		r := retry{failures: a.failed, retryAfter: retryAfterOf(err), slow: isDenied(err)}
		a.notBefore = a.wall().Add(r.delay(a.random()))
		a.leaf.failures, a.leaf.err, a.leaf.at = a.failed, err, a.notBefore
		a.report()
		if !isTemporary(err) {
			return err
		}
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "not enrolled yet", slog.Any("err", err))
	}
}

// first gets a certificate and publishes it, once: by one that has expired, if
// that is stored, or else by a token. before is what was stored, if anything was.
func (a *agent) first(ctx context.Context, over, before *identity) (err error) {
	if err := a.pause(ctx); err != nil {
		return err
	}
	var i *identity
	if over != nil {
		i, err = a.replace(ctx, over)
	} else {
		i, err = a.enrol(ctx, before)
	}
	if err == nil {
		err = i.carryOver(before, a.wall())
	}
	if err == nil {
		err = a.publish(i)
	}
	if err != nil {
		return err
	}
	a.failed = 0
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate obtained", logAttrs(i, nil)...)
	a.install(ctx, i, a.wall(), a.authority())
	a.recordOrigin(ctx, i)
	return nil
}

// pause keeps the distance that the last failure of a start asked for, also
// when Watch was called again in between.
func (s *Source) pause(ctx context.Context) error {
	wait := s.notBefore.Sub(s.wall())
	if s.failed == 0 || wait <= 0 || wait > 2*maxAsked { // longer than any backoff: the clock was set back
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

// stored returns a stored identity, expired or not, nil if there is none but a
// token may get one, and an error if there is no way forward.
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

// logAttrs names a certificate by what anyone may know about it.
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
