package enroll

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// onFetched takes the result of bundle. A changed bundle is published at once, with the same
// certificate: peers may already have certificates under a new root.
func (a *agent) onFetched(ctx context.Context, r result[[]*x509.Certificate]) {
	now := a.wallNow()
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

// changeTrust publishes the certificate in effect with another bundle.
func (a *agent) changeTrust(ctx context.Context, now time.Time, roots []*x509.Certificate) error {
	i := &identity{chain: a.cur.chain, key: a.cur.key, roots: roots}
	if err := i.carryOver(a.cur, now); err != nil {
		return err
	}
	if err := a.republish(i); err != nil {
		return err
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "trust bundle fetched", logAttrs(i, nil)...)
	if i.verify(now) != nil { // peers with this bundle refuse our certificate
		a.leaf.schedule(now, now)
	}
	a.tag = "" // with other roots, other lists may count
	a.lists.schedule(now, now)
	return nil
}

// onListed takes the result of fetchLists. Lists with a newer signature only are published
// too, because package rotation checks their age.
func (a *agent) onListed(ctx context.Context, r result[fetchedLists]) {
	now, err := a.wallNow(), r.err
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

// forgetting is how much longer a certificate must be valid, so that its absence from a new
// list counts as an error of the authority.
const forgetting = 10 * time.Minute

// changeLists publishes the lists in effect after the answer got, if they have changed.
// changed is true as well if an error came after the download.
func (a *agent) changeLists(ctx context.Context, got fetchedLists, now time.Time) (changed bool, err error) {
	i := &identity{chain: a.cur.chain, key: a.cur.key, roots: a.cur.roots}
	if i.lists, i.kept, err = a.cur.succession(got, now); err != nil {
		return true, err
	}
	if i.lists.equal(a.cur.lists) && i.kept.Len() == a.cur.kept.Len() {
		return false, nil
	}
	// If the clock here is slow, the authority seems to drop certificates before their end.
	// So only those count that are valid for ten minutes more.
	lasting := now.Add(forgetting)
	lost := i.kept.Lasting(lasting) > a.cur.kept.Lasting(lasting)
	if err := a.republish(i); err != nil {
		return true, err
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "revoked lists refreshed", slog.Int("lists", len(i.lists)), slog.Int("serials", i.lists.serials()))
	a.renewRevoked(ctx, now)
	if lost { // an operator must act: the authority may have lost its record
		a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the authority's lists no longer name revoked certificates, which stay refused here", slog.Int("serials", i.kept.Len()))
	}
	return true, nil
}

// renewRevoked plans a renewal soon if the lists name the certificate in effect or its issuer:
// peers refuse it, and only an enrolment token may help. The moment is random, because the
// certificates of a whole fleet may be revoked at once.
func (a *agent) renewRevoked(ctx context.Context, now time.Time) {
	c := a.cur.revokedInChain()
	if c == nil || a.leaf.running || a.leaf.failures > 0 {
		return
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelError, "own certificate or its issuer is revoked, renewing", append(logAttrs(a.cur, nil), slog.String("revoked", certs.Serial(c)))...)
	a.leaf.schedule(now, now.Add(time.Duration(a.random()*float64(tick(a.life())))))
}

// republish publishes i, which has the certificate in effect with another bundle or other
// lists. If that certificate has expired, the gate would refuse i: then the successor takes
// bundle and lists over.
func (a *agent) republish(i *identity) error {
	if a.wallNow().Before(i.leaf().NotAfter) {
		if err := a.publish(i); err != nil {
			return err
		}
	}
	a.cur, a.kept = i, i
	a.listHolder.Store(i)
	return nil
}

// noLists logs once that the authority serves no lists. Lists in effect stay: a revoked
// certificate does not become good because the server has changed.
func (a *agent) noLists(ctx context.Context) {
	if a.unlisted {
		return
	}
	a.unlisted = true
	if len(a.cur.lists) > 0 {
		a.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, noListsAnyMore, slog.Int("lists", len(a.cur.lists)))
		return
	}
	a.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the authority serves no revoked lists")
}

// retryRefresh plans the next attempt after a failure. Once the revoked lists are over, the
// service is not ready: they are asked for when they end, and then as often as a renewal of an
// expired certificate.
func (a *agent) retryRefresh(t *dueTime, now time.Time, err error) {
	t.failed(err)
	failures, every := a.failuresOf(t, now), a.trustInterval()
	if isDenied(err) {
		failures += 20 // the pause is then the regular interval
	}
	if end := a.cur.lists.until(); t == &a.lists.dueTime && !end.IsZero() {
		every = min(every, max(end.Sub(now), maxOver*9/10)) // a tenth of it is added at random
	}
	t.schedule(now, now.Add(refreshDelay(failures, every, retryAfterOf(err), a.random())))
}

// ReportInEffect shows the certificate stored in Dir to the authority, and says that the trust
// bundle beside it is in effect. It is for programs that renew by [Renew] or [RenewIfDue], once
// what uses the files has loaded them: otherwise the next renewal is the first to say so,
// and an operator who waits until all services trust a new root, or until none uses the
// certificates of a stolen intermediate, waits for two renewals of each. A [Source] reports
// by itself.
func (cfg Config) ReportInEffect(ctx context.Context) error {
	const doing = "reporting the trust bundle"
	s, err := New(cfg)
	if err != nil {
		return err
	}
	i, release, err := s.lockStored(doing)
	if err != nil {
		return err
	}
	defer release()
	s.listHolder.Store(i)
	shown := i.certificate()
	c, err := s.newDialer().newClient(s.cfg.URL, i.roots, &shown)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer c.Close()
	c.TrustDigest = stepapi.TrustDigest(i.roots)
	_, err = c.Roots(ctx)
	return err
}

// reporter tells the authority which of the processes with one certificate a report is of: it is
// the same for the next process that works on this directory, and another one for a copy of
// the files.
func (s *Source) reporter() string {
	if s.store != nil && s.store.place != "" {
		return s.store.place
	}
	return s.process
}
