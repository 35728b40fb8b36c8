package enroll

import (
	"context"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

// onFetched takes the answer of bundle. A changed bundle is published at once,
// with the same certificate: peers that renewed early already use it.
func (a *agent) onFetched(ctx context.Context, r result[[]*x509.Certificate]) {
	now := a.wall()
	err, changed := r.err, false
	if err == nil && stepapi.TrustDigest(r.value) != stepapi.TrustDigest(a.cur.roots) {
		changed = true
		err = a.changeTrust(ctx, now, r.value)
	}
	if err == nil {
		a.trust.succeeded()
		a.trust.schedule(now, now.Add(refreshDelay(0, a.trustInterval(), 0, a.random())))
		return
	}
	if ctx.Err() != nil {
		return
	}
	a.retryRefresh(&a.trust.dueTime, now, err)
	level := slog.LevelWarn
	if changed {
		level = slog.LevelError
	}
	a.cfg.Logger.LogAttrs(ctx, level, "trust bundle not refreshed", logAttrs(a.cur, err)...)
}

func (a *agent) changeTrust(ctx context.Context, now time.Time, roots []*x509.Certificate) error {
	i := &identity{chain: a.cur.chain, key: a.cur.key, roots: roots}
	if err := i.carryOver(a.cur, now); err != nil {
		return err
	}
	if err := a.republish(i); err != nil {
		return err
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "trust bundle fetched", logAttrs(i, nil)...)
	if i.verify(now) != nil { // whoever has this bundle will refuse us
		a.leaf.schedule(now, now)
	}
	a.tag = "" // other roots, other lists
	a.lists.schedule(now, now)
	return nil
}

// onListed takes the answer of revoked. Lists that only are newer are published
// too: how fresh they are is part of what peers rely on.
func (a *agent) onListed(ctx context.Context, r result[fetchedLists]) {
	now, err := a.wall(), r.err
	if isUnsupported(err) {
		a.noLists(ctx)
		err, r.value = nil, fetchedLists{}
	}
	changed := false
	if err == nil {
		changed, err = a.changeLists(ctx, r.value, now)
	}
	if err == nil {
		a.tag = r.value.tag
		a.lists.succeeded()
		a.lists.schedule(now, now.Add(refreshDelay(0, a.trustInterval(), 0, a.random())))
		return
	}
	if ctx.Err() != nil {
		return
	}
	a.retryRefresh(&a.lists.dueTime, now, err)
	level := slog.LevelWarn
	if changed {
		level = slog.LevelError
	}
	a.cfg.Logger.LogAttrs(ctx, level, "revoked lists not refreshed", logAttrs(a.cur, err)...)
}

// forgetting is for how much longer a certificate would have to be on its list before
// its absence is told as a loss of the authority's.
const forgetting = 10 * time.Minute

// changeLists publishes what got makes of the lists in effect, if that is a change.
func (a *agent) changeLists(ctx context.Context, got fetchedLists, now time.Time) (changed bool, err error) {
	i := &identity{chain: a.cur.chain, key: a.cur.key, roots: a.cur.roots}
	if i.lists, i.kept, err = a.cur.succession(got, now); err != nil {
		return true, err
	}
	if i.lists.equal(a.cur.lists) && i.kept.Len() == a.cur.kept.Len() {
		return false, nil
	}
	// By a clock that is behind the authority's, what has just ended seems to be dropped too early.
	lasting := now.Add(forgetting)
	lost := i.kept.Lasting(lasting) > a.cur.kept.Lasting(lasting)
	if err := a.republish(i); err != nil {
		return true, err
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "revoked lists refreshed", slog.Int("lists", len(i.lists)), slog.Int("serials", i.lists.serials()))
	if lost { // somebody must act: the authority may have lost its record
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the authority's lists no longer name revoked certificates, which stay refused here", slog.Int("serials", i.kept.Len()))
	}
	return true, nil
}

// republish publishes i, which differs from the current identity in what comes with
// the certificate. With one that is over nobody would take it: then it waits for
// the successor, which inherits it.
func (a *agent) republish(i *identity) error {
	if a.wall().Before(i.leaf().NotAfter) {
		if err := a.publish(i); err != nil {
			return err
		}
	}
	a.cur, a.kept = i, i
	a.listHolder.Store(i)
	return nil
}

// noLists says once that the authority has none. Lists in effect stay there:
// what was revoked does not become good by a change of the server.
func (a *agent) noLists(ctx context.Context) {
	if a.unlisted {
		return
	}
	a.unlisted = true
	if len(a.cur.lists) > 0 {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the authority serves no revoked lists any more, the last ones stay in effect", slog.Int("lists", len(a.cur.lists)))
		return
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the authority serves no revoked lists")
}

// retryRefresh plans another look after a failure.
func (a *agent) retryRefresh(t *dueTime, now time.Time, err error) {
	t.failed(err)
	failures := t.failures
	if isDenied(err) {
		failures += 20 // no use in hurrying
	}
	t.schedule(now, now.Add(refreshDelay(failures, a.trustInterval(), retryAfterOf(err), a.random())))
}
