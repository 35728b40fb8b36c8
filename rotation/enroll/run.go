package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

// run renews and refreshes until ctx ends, and then waits for the tasks that are running.
// That is short, because all requests end with ctx.
func (a *agent) run(ctx context.Context) error {
	defer func() {
		a.leaf.join()
		a.trust.join()
		a.lists.join()
		a.watch.join()
		a.watch.disconnect()
	}()
	for {
		now := a.wallNow()
		a.begin(ctx, now)
		a.report()
		timer := time.NewTimer(a.sleep(now))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case r := <-a.leaf.done:
			a.leaf.running = false
			a.outage.note(a.wallNow(), r.err)
			if !a.overtaken(&a.leaf.dueTime, r.err) {
				a.onRenewed(ctx, r)
			}
		case r := <-a.trust.done:
			a.trust.running = false
			a.outage.note(a.wallNow(), r.err)
			if !a.overtaken(&a.trust.dueTime, r.err) {
				a.onFetched(ctx, r)
			}
		case r := <-a.lists.done:
			a.lists.running = false
			a.outage.note(a.wallNow(), r.err)
			if !a.overtaken(&a.lists.dueTime, r.err) {
				a.onListed(ctx, r)
			}
		case r := <-a.watch.done:
			a.watch.running, a.watch.held = false, nil
			a.onWatched(ctx, r)
		case <-a.watch.held:
			a.onHeld(ctx)
		case <-a.deliveries: // beginWatch reports it
		case <-timer.C:
		}
		timer.Stop()
		a.compareClocks(ctx)
	}
}

// begin starts the tasks that are due. Each gets the identity in effect now. If that changes
// meanwhile, the result is adapted when it arrives (carryOver, succession).
func (a *agent) begin(ctx context.Context, now time.Time) {
	cur, tag := a.cur, a.tag
	if a.ready(&a.leaf.dueTime, now) {
		a.leaf.roots, a.outage.last = cur.roots, now
		a.leaf.start(func() (*identity, error) { return a.replace(ctx, cur) })
	}
	if a.ready(&a.trust.dueTime, now) {
		a.trust.roots, a.outage.last = cur.roots, now
		a.trust.start(func() ([]*x509.Certificate, error) {
			roots, err := a.bundle(ctx, cur.roots)
			if !unanswered(err) {
				a.storeHead(ctx, cur) // in this task, because a renewal must not wait for it
			}
			return roots, err
		})
	}
	if a.ready(&a.lists.dueTime, now) {
		a.lists.roots, a.outage.last = cur.roots, now
		a.lists.start(func() (fetchedLists, error) { return a.fetchLists(ctx, cur.roots, tag) })
	}
	a.beginWatch(ctx, now)
}

// outage is what is known of an authority that gives no answer. A service has four kinds of
// requests: renewals, the trust bundle, the revoked lists, and the request that is held. In the first
// moments, which may be a restart of the authority, each of them is repeated by itself. After that
// they share what they know: the pauses count the failures of all, and two requests are a tick apart.
type outage struct {
	failures int       // requests in a row that got no answer; 0: there is no outage
	since    time.Time // the first of these failures
	last     time.Time // when a request began last
}

// note takes the outcome of a request. Any answer ends the outage, a refusal too.
func (o *outage) note(now time.Time, err error) {
	switch {
	case !unanswered(err):
		o.failures = 0
	case o.failures == 0:
		o.failures, o.since = 1, now
	default:
		o.failures++
	}
}

// lasts reports whether the outage has lasted for the time of a tick, so that requests are
// spaced by it.
func (o *outage) lasts(now time.Time, tick time.Duration) bool {
	return o.failures > 0 && now.Sub(o.since) >= tick
}

// unanswered reports whether err is that of a request to which nobody has answered. A server that
// refuses the connection, or that is refused here, is there.
func unanswered(err error) bool {
	_, answered := errors.AsType[*Error](err)
	return !answered && errors.As(err, new(noAnswer)) && !isDenied(err) && !unverified(err)
}

// opens returns the earliest moment for a request of the task, zero if there is none. The renewal
// goes first: the others leave a tick before it free.
func (a *agent) opens(t *dueTime, now time.Time) time.Time {
	o, gap := &a.outage, tick(a.life())
	if !o.lasts(now, gap) || now.Before(o.last) { // the second: the clock was set back
		return time.Time{}
	}
	at := o.last.Add(gap)
	if t == &a.leaf.dueTime || a.leaf.running {
		return at
	}
	if renewal := later(a.leaf.at, at); later(t.at, at).Add(gap).After(renewal) {
		return renewal.Add(gap)
	}
	return at
}

// ready reports whether a task must start now.
func (a *agent) ready(t *dueTime, now time.Time) bool {
	return t.due(now) && !now.Before(a.opens(t, now))
}

// failuresOf returns how often in a row a task has failed, for its next pause. In an outage the
// failures of the others count: what becomes due then does not begin with short pauses.
func (a *agent) failuresOf(t *dueTime, now time.Time) int {
	if a.outage.lasts(now, tick(a.life())) {
		return max(t.failures, a.outage.failures)
	}
	return t.failures
}

// overtaken reports whether a task has refused the server by a bundle that is not in effect any
// more, and then starts it anew at once. A connection that takes a second, because a packet was
// lost, may begin with the bundle from before a new root and end at a server that already has a
// certificate of it. That is no other authority, and no reason to wait.
func (a *agent) overtaken(t *dueTime, err error) bool {
	if !unverified(err) || stepapi.TrustDigest(t.roots) == stepapi.TrustDigest(a.cur.roots) {
		return false
	}
	now := a.wallNow()
	t.schedule(now, now)
	return true
}

// sleep returns the time until a task is due, or the tick if that is shorter: a timer does
// not count the time in which the machine is suspended.
func (a *agent) sleep(now time.Time) time.Duration {
	d := tick(a.life())
	for _, t := range []*dueTime{&a.leaf.dueTime, &a.trust.dueTime, &a.lists.dueTime} {
		if !t.running {
			d = min(d, later(t.at, a.opens(t, now)).Sub(now))
		}
	}
	if t := &a.watch.dueTime; !t.running && a.watchReady(now) {
		d = min(d, later(t.at, a.opens(t, now)).Sub(now))
	}
	return max(d, time.Millisecond)
}

// life returns the life of the certificate in effect, by the clock of the authority.
func (a *agent) life() time.Duration { return a.cur.leaf().NotAfter.Sub(a.issued) }

func (a *agent) trustInterval() time.Duration { return refreshInterval(a.cfg.TrustRefresh, a.life()) }

// replace gets a successor of cur: by cur itself, or by an enrolment token if the authority
// refuses cur or is another one.
func (s *Source) replace(ctx context.Context, cur *identity) (*identity, error) {
	i, refused := s.renew(ctx, cur)
	switch {
	case unverified(refused):
		return s.reanchor(ctx, cur, refused)
	case isDenied(refused):
		return s.enrolRefused(ctx, cur, refused)
	}
	return i, refused // refused may be nil
}

// enrolRefused enrols after the authority refused cur.
func (s *Source) enrolRefused(ctx context.Context, cur *identity, refused error) (*identity, error) {
	i, err := s.enrol(ctx, cur)
	if err != nil {
		return nil, errors.Join(refused, err)
	}
	return i, nil
}

// onRenewed takes the result of replace. After any failure, a full disk or a refusal by the
// gate included, the identity in effect stays and another attempt is planned.
func (a *agent) onRenewed(ctx context.Context, r result[*identity]) {
	now, err := a.wallNow(), r.err
	if err == nil {
		err = r.value.carryOver(a.cur, now)
	}
	if err == nil {
		err = a.publish(r.value)
	}
	if err == nil {
		// At debug level, because rotation.Identity logs what comes into effect.
		a.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "certificate renewed", logAttrs(r.value, nil)...)
		if !slices.EqualFunc(r.value.chain[1:], a.cur.chain[1:], (*x509.Certificate).Equal) { // another issuer has another list
			a.lists.schedule(now, now)
		}
		a.install(ctx, r.value, now, a.authority())
		a.recordOrigin(ctx, r.value)
		return
	}
	if ctx.Err() != nil {
		return
	}
	a.leaf.failed(err)
	remaining := a.remaining(a.cur.leaf().NotAfter)
	a.leaf.schedule(now, now.Add(retry{
		failures: a.failuresOf(&a.leaf.dueTime, now), life: a.life(), remaining: remaining,
		retryAfter: retryAfterOf(err), slow: isDenied(err) || errors.Is(err, ErrNoToken) || errors.Is(err, ErrOtherAuthority),
	}.delay(a.random())))
	level := slog.LevelWarn
	if remaining <= 0 || isDenied(err) || errors.Is(err, ErrOtherAuthority) || r.err == nil { // an operator must act
		level = slog.LevelError
	}
	a.cfg.Logger.LogAttrs(ctx, level, "certificate not renewed", logAttrs(a.cur, err)...)
}

// publish stores i and then yields it. If the gate refuses i, the identity before is stored
// again, so that a restart does not begin with a refused one.
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

// install makes i, which is published, the current identity and plans its renewal.
func (a *agent) install(ctx context.Context, i *identity, received, issued time.Time) {
	now := a.wallNow()
	a.cur, a.received, a.issued, a.kept, a.renewalPoint = i, received, issued, i, a.random()
	a.listHolder.Store(i)
	if i.newAuthority {
		a.tag = "" // the lists in effect are gone
	}
	a.leaf.succeeded()
	a.watch.renewed()
	a.plan(now)
	if a.trust.at.IsZero() { // soon, but at a random moment: other services may start now too
		first := float64(min(tick(a.life()), a.trustInterval()))
		a.trust.schedule(now, now.Add(time.Duration(a.random()*first)))
		a.lists.schedule(now, now.Add(time.Duration(a.random()*first)))
		a.watch.schedule(now, later(a.trust.at, a.lists.at)) // it then says what these have brought
	}
	if err := a.pending.forget(); err != nil {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "key of a finished enrolment not removed", logAttrs(i, err)...)
	}
}

// plan sets the time of the renewal, not earlier than a tenth of the life after receipt: a
// wrong clock must not cause renewals in a loop. An order of the authority may be earlier.
func (a *agent) plan(now time.Time) {
	leaf := a.cur.leaf()
	at := validity{a.received, a.issued, leaf.NotAfter}.renewalTime(a.offset(), a.renewalPoint)
	if least := a.received.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 10); at.Before(least) {
		at = least
	}
	if ordered := a.watch.renewAt; !ordered.IsZero() && ordered.Before(at) {
		at = ordered
	}
	a.leaf.schedule(now, at)
}

// compareClocks plans the renewal again when the difference between the clock here and that
// of the authority has changed. It logs a difference once, and its end.
func (a *agent) compareClocks(ctx context.Context) {
	skew := a.offset()
	if skew == a.assumed {
		return
	}
	a.assumed = skew
	if !a.leaf.running && a.leaf.failures == 0 {
		a.plan(a.wallNow())
	}
	if (skew - a.lastLoggedSkew).Abs() <= minLoggedSkew {
		return
	}
	a.lastLoggedSkew = skew
	if skew.Abs() <= minLoggedSkew {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the clock here agrees with the authority's again")
		return
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the clock here differs from the authority's", slog.Duration("ahead", -skew))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// dueTime says when a task is due, by the wall clock.
type dueTime struct {
	set, at  time.Time // when it was planned, and for when
	failures int       // in a row
	err      error     // of the last failure, nil after a success
	running  bool
	roots    []*x509.Certificate // the bundle by which the task that is running, or was last, judges the server
}

func (t *dueTime) schedule(now, at time.Time) { t.set, t.at = now, at }

// due reports whether the task must start. That is so too if the clock was set back to
// before the planning: then the plan was made by a wrong clock.
func (t *dueTime) due(now time.Time) bool {
	return !t.running && (!now.Before(t.at) || now.Before(t.set.Add(-time.Minute)))
}

func (t *dueTime) succeeded() { t.failures, t.err = 0, nil }

func (t *dueTime) failed(err error) { t.failures, t.err = t.failures+1, err }

// task is work that runs beside the agent, in one goroutine at a time.
type task[T any] struct {
	dueTime
	done chan result[T]
}

type result[T any] struct {
	value T
	err   error
}

func newTask[T any]() task[T] { return task[T]{done: make(chan result[T], 1)} }

// start runs work. Its result arrives on j.done, which has room for it.
func (j *task[T]) start(work func() (T, error)) {
	j.running = true
	go func() {
		v, err := work()
		j.done <- result[T]{v, err}
	}()
}

// join waits for the end of the task, if it is running.
func (j *task[T]) join() {
	if j.running {
		<-j.done
	}
}
