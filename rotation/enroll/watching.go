package enroll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A service holds one request at the authority. The answer comes when the trust bundle, a
// revocation list or an order to renew changes, so that the change takes effect here within
// seconds. The answer is only a reason to fetch bundle or lists, or to renew, now: what is
// fetched is verified as always, and the regular refreshes go on. So an authority without
// this request, or a network that cuts it, costs the speed and nothing else.
// docs/design/0032-watching.md

const (
	// leastWait and mostWait bound how long one request is held, at random, so that requests
	// that began together do not end together.
	leastWait, mostWait = 240 * time.Second, 300 * time.Second
	// heldAfter is how long a request must be without an answer to count as held. An authority
	// that does not know it answers before.
	heldAfter = time.Second
	// shortestCut is from when on a request that was cut counts as cut for its length. A proxy
	// or a firewall may end what is silent for a minute: the next requests are shorter.
	shortestCut = 10 * time.Second
	// askAgain is when an authority that does not know the request is asked again: it may have
	// been replaced by a newer one.
	askAgain = time.Hour
	// firstReconnect and mostReconnect bound the step after a failure. The pause is a random
	// part of it, so that 200 services whose authority restarts come back at 40 a second.
	firstReconnect, mostReconnect = 5 * time.Second, 5 * time.Minute
	// refreshSpread is within which time the services that were told of a change fetch it.
	refreshSpread = 500 * time.Millisecond
	// orderPause is the shortest time from a new certificate to a renewal by an order. It
	// bounds the renewals by an authority that gives orders in a loop.
	orderPause = 5 * time.Second
)

// Modes in the status of a rotation.Identity.
const (
	modeWatch = "watch+poll"
	modePoll  = "poll"
)

// watching is the state of the requests of one agent, which is their owner.
type watching struct {
	task[watchAnswer]
	conn   *watchConn
	asked  watchValues        // of the request that is running, or was last
	most   time.Duration      // the longest wait that the network lets pass, as far as is known
	cancel context.CancelFunc // ends the request that is running
	held   chan struct{}      // of that request, which signals once that it is held

	told     watchValues // of the last answer; zero if it was compared with what is in effect
	behind   int         // answers in a row whose change could not be put into effect
	mode     string      // modeWatch, modePoll, or "" before the first outcome
	since    time.Time   // of mode
	answered time.Time   // the last answer

	obeyed  obeyed    // the newest order
	renewAt time.Time // when to renew by an order; zero: there is none
	between bool      // that order came while a renewal was running
}

// values returns what is in effect.
func (a *agent) values() watchValues {
	return watchValues{stepapi.TrustDigest(a.cur.roots), tagOf(a.tag), a.watch.obeyed, a.delivered()}
}

// beginWatch starts a request if none is running, and ends one that another has to follow
// with a newer certificate or newer values. It waits for refreshes that are running, so that
// one request reports what they have brought.
func (a *agent) beginWatch(ctx context.Context, now time.Time) {
	w, have := &a.watch, a.values()
	switch {
	case a.cfg.PollOnly:
		return
	case w.running:
		if w.asked != have || !w.conn.fits(a.cur) {
			w.cancel()
		}
		return
	case !a.watchReady(now) || !a.ready(&w.dueTime, now):
		return
	case w.told != watchValues{} && (stuck(w.told.trust, w.asked.trust, have.trust) || stuck(w.told.lists, w.asked.lists, have.lists)):
		// The next answer would come at once and say the same.
		w.behind, w.told = w.behind+1, watchValues{}
		w.schedule(now, now.Add(a.reconnectDelay(w.behind, 0)))
		return
	case w.told != watchValues{}:
		w.behind = 0
	}
	if err := w.connect(a.Source, a.cur); err != nil {
		a.onWatched(ctx, result[watchAnswer]{err: err})
		return
	}
	asking, cancel := context.WithCancel(ctx)
	a.outage.last = now
	w.asked, w.cancel, w.held = have, cancel, make(chan struct{}, 1)
	conn, held := w.conn, w.held
	wait := min(backoff.Between(leastWait, mostWait, a.random()), w.most, a.cur.leaf().NotAfter.Sub(now))
	w.start(func() (watchAnswer, error) {
		defer cancel()
		return conn.ask(asking, have, wait, held)
	})
}

// stuck reports whether a value that was announced did not come into effect, nor any other
// than that of the question.
func stuck(told, asked, have string) bool { return told != have && asked == have }

// watchReady reports whether the next request may begin: no refresh is running, and the
// certificate can be shown.
func (a *agent) watchReady(now time.Time) bool {
	return !a.cfg.PollOnly && !a.trust.running && !a.lists.running && now.Before(a.cur.leaf().NotAfter)
}

// connect makes a connection for the identity i, if there is none that fits it.
func (w *watching) connect(s *Source, i *identity) (err error) {
	if w.conn.fits(i) && s.checkRevoked(w.conn.serverChains()) == nil {
		return nil
	}
	w.disconnect()
	w.conn, err = s.newWatchConn(i)
	return err
}

func (w *watching) disconnect() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// onHeld notes that the request is held, which is an answer of a kind.
func (a *agent) onHeld(ctx context.Context) {
	a.outage.note(a.wallNow(), nil)
	a.setMode(ctx, modeWatch, nil)
}

// onWatched takes the outcome of a request.
func (a *agent) onWatched(ctx context.Context, r result[watchAnswer]) {
	w, now := &a.watch, a.wallNow()
	if !errors.Is(r.err, context.Canceled) {
		a.outage.note(now, r.err)
	}
	switch {
	case ctx.Err() != nil:
	case r.err == nil:
		w.succeeded()
		w.answered, w.most = now, min(w.most+w.most/8, mostWait)
		a.setMode(ctx, modeWatch, nil)
		w.schedule(now, now.Add(r.value.after))
		a.follow(ctx, now, r.value)
	case errors.Is(r.err, context.Canceled): // by beginWatch
		w.schedule(now, now)
	case isUnsupported(r.err):
		w.failed(r.err)
		w.disconnect()
		w.schedule(now, now.Add(spread(askAgain, a.random())))
		a.setMode(ctx, modePoll, nil)
	default:
		w.failed(r.err)
		w.disconnect()
		w.schedule(now, now.Add(a.reconnectDelay(a.failuresOf(&w.dueTime, now), retryAfterOf(r.err))))
		if held := r.value.held; held >= shortestCut {
			w.most = min(w.most, held*3/4)
			return // it was held: the next request shows whether they still are
		}
		a.setMode(ctx, modePoll, fmt.Errorf("the authority does not tell of changes at once: %w", r.err))
	}
}

// reconnectDelay returns the pause after so many failures in a row: full jitter, and half of the
// longest step at least, where a fleet is spread already. A Retry-After comes before it.
func (a *agent) reconnectDelay(failures int, asked time.Duration) time.Duration {
	step := backoff.Step(firstReconnect, mostReconnect, failures-1)
	pause := backoff.Full(step, a.random())
	if step == mostReconnect {
		pause = backoff.Half(step, a.random())
	}
	return min(asked, maxLater) + max(pause, minTick)
}

// follow does what an answer asks for: it plans refreshes and a renewal.
func (a *agent) follow(ctx context.Context, now time.Time, r watchAnswer) {
	w := &a.watch
	w.told = watchValues{trust: r.Trust, lists: r.Lists}
	soon := now.Add(time.Duration(a.random() * float64(refreshSpread)))
	if r.Trust != w.asked.trust {
		a.trust.schedule(now, soon)
		w.schedule(now, soon)
	}
	if r.Lists != w.asked.lists {
		a.lists.schedule(now, soon)
		w.schedule(now, soon)
	}
	if o := r.Renewal; o != nil && (o.ID > w.obeyed.id || o.Nonce != w.obeyed.nonce) {
		a.obey(ctx, now, *o)
	}
}

// obey plans a renewal at a random moment of the time that the order gives. An order counts
// as obeyed from here on: if this process ends before the renewal, the authority sees by the
// date of the certificate that it has to be told again.
func (a *agent) obey(ctx context.Context, now time.Time, order stepapi.WatchRenewal) {
	w := &a.watch
	at := now.Add(time.Duration(a.random() * order.Within * float64(time.Second)))
	if least := a.received.Add(orderPause); at.Before(least) {
		at = least
	}
	w.obeyed, w.between = obeyed{order.ID, order.Nonce}, a.leaf.running
	if w.renewAt.IsZero() || at.Before(w.renewAt) {
		w.renewAt = at
	}
	if !a.leaf.running && w.renewAt.Before(a.leaf.at) {
		a.leaf.schedule(now, w.renewAt)
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the authority orders a renewal", append(logAttrs(a.cur, nil), slog.Int64("order", order.ID), slog.Time("renews_at", w.renewAt))...)
}

// renewed ends the order that the new certificate has followed. A renewal that was running
// when the order came may have been answered before it, so that another one follows.
func (w *watching) renewed() {
	if !w.between {
		w.renewAt = time.Time{}
	}
	w.between = false
}

// setMode notes whether the authority tells of changes. Each change of it is one line in the
// log: of rotation.Identity if there is a fault, and otherwise here.
func (a *agent) setMode(ctx context.Context, mode string, why error) {
	w := &a.watch
	if mode == w.mode {
		return
	}
	w.mode, w.since = mode, a.wallNow()
	if a.observer != nil {
		a.observer.Mode(mode, why)
	}
	switch {
	case mode == modeWatch:
		a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the authority tells of changes at once")
	case why == nil:
		a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the authority does not tell of changes, polling only")
	case a.observer == nil:
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "changes are noticed by polling only", slog.Any("err", why))
	}
}
