package ca

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	mrand "math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/watch"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A service holds one request at the authority, GET /watch, and gets the answer when the
// trust bundle, a revocation list or an order to renew changes. So a change takes seconds
// and not a renewal. Package ca/internal/watch decides who has to hear of what; this file
// learns of changes, and speaks HTTP. docs/design/0032-watching.md

const (
	// lookEvery is how often the record is asked for changes by other processes. With
	// PostgreSQL these tell of themselves, and this is for the time in which nobody listens.
	lookEvery = time.Second
	// recomputeEvery is how often lists are looked at although nothing has changed: they are
	// made again at half of their life.
	recomputeEvery = time.Minute
	// publishPause is the shortest time between two publications. Revocations that follow
	// each other within it wake each service once.
	publishPause = 100 * time.Millisecond
	// reportEvery is how often a report of a service that says nothing new is recorded.
	reportEvery = time.Minute
	// writeAnswer is how long the answer of a held request may take to be sent.
	writeAnswer = 30 * time.Second
	// retryWatch is when a service whose request cannot be held asks again, in seconds, and
	// retryClosed when it asks an authority again that stops.
	retryWatch, retryClosed = 30, 5
)

// KeepWatchers lets services wait for changes, and tells them of those that this process or
// another one makes, until ctx ends. Then it answers all requests that wait, and returns
// nil. Call it before the server begins, and end it when the server begins to drain. While
// it does not run, GET /watch is answered with status 503, and services ask from time to
// time instead. Failures are logged and retried.
func (a *Authority) KeepWatchers(ctx context.Context) error {
	heard := make(chan struct{}, 1)
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		a.listen(ctx, heard)
	}()
	defer func() { a.watchers.Close(); <-listening }()
	var p publisher
	failing := false
	for {
		// The channels are taken before the record is read: a change after that closes them.
		st, revoked, ordered := a.state.Load(), a.revokes.next(), a.ordered.next()
		err := p.publish(ctx, a, st)
		switch {
		case ctx.Err() != nil:
			return nil // the end of ctx is the normal end
		case err != nil && !failing:
			a.logger.WarnContext(ctx, "services that wait are not told of changes, will retry", "err", err)
		case err == nil && failing:
			a.logger.InfoContext(ctx, "services that wait are told of changes again")
		}
		failing = err != nil
		timer := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-st.superseded:
		case <-revoked:
		case <-ordered:
		case <-heard:
			_ = a.followTrust(ctx) // KeepLog does so each second as well, and says why it fails
		case <-timer.C:
		}
		timer.Stop()
		if !waitUntil(ctx, p.last.Add(publishPause)) {
			return nil
		}
	}
}

// listen signals changes that other processes tell of, until ctx ends. Without a database
// that tells, it returns at once.
func (a *Authority) listen(ctx context.Context, heard chan<- struct{}) {
	for attempt := 0; ; attempt++ {
		err := a.record.Listen(ctx, func() {
			attempt = 0
			select {
			case heard <- struct{}{}:
			default: // the signal before has not been taken yet
			}
		})
		if ctx.Err() != nil || errors.Is(err, errors.ErrUnsupported) {
			return
		}
		a.logger.WarnContext(ctx, "not listening for changes of other processes, will retry", "err", err)
		//nolint:gosec // G404: jitter, not a secret
		if !waitUntil(ctx, time.Now().Add(backoff.Half(backoff.Step(time.Second, time.Minute, attempt), mrand.Float64()))) {
			return
		}
	}
}

// publisher publishes values when they change.
type publisher struct {
	made    time.Time // when values was computed
	last    time.Time // when values was published
	from    *state
	changes store.Changes
	values  watch.Values
}

// publish computes the values if they may have changed, and publishes them if they have.
// The tag of the lists is computed here, once for all who wait.
func (p *publisher) publish(ctx context.Context, a *Authority, st *state) error {
	changes, err := a.record.Changes(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if p.from == st && p.changes == changes && now.Sub(p.made) < recomputeEvery && !now.Before(p.made) {
		return nil
	}
	served, err := a.servedLists(ctx, st)
	if err != nil {
		return err
	}
	orders, err := a.record.RenewalOrders(ctx)
	if err != nil {
		return err
	}
	if err := a.sweepRenewals(ctx, orders); err != nil { // what is left is told all the same
		a.logger.WarnContext(ctx, "orders to renew not swept", "err", err)
	}
	next := watch.Values{Trust: st.digest, Lists: served.tag, Orders: watchOrders(orders)}
	first := p.from == nil
	p.made, p.from, p.changes = now, st, changes
	if !first && next.Equal(&p.values) {
		return nil
	}
	p.values, p.last = next, now
	a.watchers.Publish(&next)
	return nil
}

// maxWatchers is how many requests wait at a time.
func (a *Authority) maxWatchers() int {
	return cmp.Or(a.state.Load().config.Limits.Watchers, watch.DefaultWatchers)
}

// getWatch answers GET /watch of a service: at once if it lacks something, and otherwise
// when something changes or the wait is over. Whoever has not been authenticated and
// authorized is refused before the request can wait.
func (a *Authority) getWatch(w http.ResponseWriter, r *http.Request) error {
	c, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return err
	}
	if err := a.authorize(r.Context(), a.state.Load(), c, accessRequest{action: actWatch, lineage: entry.Lineage}); err != nil {
		return err
	}
	q, err := watch.ParseQuery(r.URL.Query())
	if err != nil {
		return denial.BadRequest("%v", err)
	}
	if q.Wait > 0 {
		if err := mayBeHeld(r); err != nil {
			return err
		}
	}
	a.recordWatched(r, entry, q.Trust)
	a.recordDelivery(r, entry)
	ticket, answer := a.watchers.Enter(holderOf(entry, r.TLS.VerifiedChains[0][0]), q) // equal to the entry, as verifyPeer has checked
	if ticket == nil {
		return a.answerWatch(w, answer)
	}
	return a.hold(w, r, ticket, entry)
}

// mayBeHeld refuses a request that would cost more than a connection while it waits: over
// HTTP/2 that is 64 KiB of goroutines and buffers, and HTTP/2 has no way to give them back. It
// is refused also if the answer would come at once, so that the first request of a client shows
// that it has to use the other version.
func mayBeHeld(r *http.Request) error {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 { // RFC 9110 §15.6.6
		return &denial.RequestError{Status: http.StatusHTTPVersionNotSupported, Text: "a request that waits has to be of HTTP/1.1: offer only http/1.1 in the handshake (ALPN), or ask with wait=0 from time to time"}
	}
	if r.ContentLength != 0 {
		return denial.BadRequest("a request that waits must have no body")
	}
	return nil
}

// hold holds a request until its ticket ends, which is before its certificate does.
func (a *Authority) hold(w http.ResponseWriter, r *http.Request, ticket *watch.Ticket, entry record.Certificate) error {
	ticket.Shorten(time.Until(entry.NotAfter))
	err := httpserver.Hold(r, entry.Lineage, httpserver.Held{Total: a.maxWatchers(), PerOwner: watch.PerLineage})
	if err != nil {
		ticket.Leave()
		return a.answerWatch(w, watch.Answer{Reason: watch.ReasonFull})
	}
	detached, err := httpserver.Detach(w, r, ticket.Leave)
	switch {
	case err == nil: // nothing of the request stays in memory but its connection
		ticket.Then(func(answer watch.Answer) { a.answerDetached(detached, answer) })
		return nil
	case errors.Is(err, httpserver.ErrNotDetached): // another server than ours has accepted it: its handler waits
		// It fails for a recorder in a test only.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(ticket.Longest() + writeAnswer))
		return a.answerWatch(w, ticket.Wait(r.Context()))
	}
	ticket.Leave()
	return nil // the connection is broken, and nobody is left to tell
}

// answerDetached is [Authority.answerWatch] for a request that has left its handler.
func (a *Authority) answerDetached(d *httpserver.Detached, answer watch.Answer) {
	a.metrics.watched.WithLabelValues(string(answer.Reason)).Inc()
	if answer.Reason == watch.ReasonGone {
		_ = d.Close() // nobody is left who could be told of an error
		return
	}
	m := messageFor(answer)
	body, err := json.Marshal(m.body)
	if err != nil {
		a.logger.Error("an answer is no JSON", "err", err)
		return
	}
	m.header.Set("Content-Type", "application/json")
	_ = d.Answer(m.status, m.header, append(body, '\n'), writeAnswer) // the client may have gone
}

// answerWatch writes the answer of a request and counts it.
func (a *Authority) answerWatch(w http.ResponseWriter, answer watch.Answer) error {
	a.metrics.watched.WithLabelValues(string(answer.Reason)).Inc()
	if answer.Reason == watch.ReasonGone {
		return nil
	}
	m := messageFor(answer)
	maps.Copy(w.Header(), m.header)
	writeJSON(w, m.status, m.body)
	return nil
}

// message is an answer of GET /watch in the terms of HTTP.
type message struct {
	status int
	header http.Header
	body   any
}

// messageFor returns what a caller is told. One whose request cannot be held, or whose
// lineage has other ones, is told to come back later. The connection ends where the server
// ends, and where others of the lineage wait.
func messageFor(a watch.Answer) message {
	m := message{status: http.StatusOK, header: make(http.Header)}
	if a.Values == nil || a.Reason == watch.ReasonFull {
		after := retryWatch
		if a.Reason == watch.ReasonClosed {
			after = retryClosed
			m.header.Set("Connection", "close")
		}
		m.header.Set("Retry-After", strconv.Itoa(after))
		m.status = http.StatusServiceUnavailable
		m.body = stepapi.Error{Status: m.status, Message: "the authority holds no further request now; ask from time to time"}
		return m
	}
	if a.Reason == watch.ReasonReplaced {
		m.header.Set("Retry-After", strconv.Itoa(retryWatch))
		m.header.Set("Connection", "close")
	}
	out := stepapi.WatchResponse{Trust: a.Values.Trust, Lists: a.Values.Lists}
	if o := a.Order; o != nil {
		out.Renewal = &stepapi.WatchRenewal{ID: o.ID, Nonce: o.Nonce, Within: max(0, time.Until(o.By).Seconds())}
	}
	m.body = out
	return m
}

// recordWatched records which bundle a service has in effect, as recordTrustReport does.
// Services ask every few minutes, so what is known already is not written each time.
func (a *Authority) recordWatched(r *http.Request, entry record.Certificate, trust string) {
	report := reportOf(r)
	report.Digest, report.At = trust, time.Now()
	report.Due = report.At.Add(watchReport)
	if trust == "" || !a.watchers.Report(entry.Lineage, entry.Serial, trust+report.Reporter, reportEvery) {
		return
	}
	if err := a.reportTrust(r.Context(), entry, report); err != nil {
		a.watchers.Forget(entry.Lineage)
		a.logger.WarnContext(r.Context(), "trust report not recorded", "service", entry.Service, "err", err)
	}
}

// recordDelivery records which certificate of its lineage a service says is served, and where.
// It never fails a request. A report of another form is none, and one of another lineage is not
// recorded: a service could say of others that they are delivered.
func (a *Authority) recordDelivery(r *http.Request, entry record.Certificate) {
	var said watch.Delivery
	if !said.Parse(r.URL.Query()) || !a.watchers.ReportDelivery(entry.Lineage, said) {
		return
	}
	now := time.Now()
	known, err := a.record.ReportDelivery(r.Context(), record.Delivery{
		Serial: said.Serial, Lineage: entry.Lineage, Address: said.Address, Servers: said.Servers, Since: now.Add(-said.For),
	}, now)
	switch {
	case err != nil:
		a.watchers.ForgetDelivery(entry.Lineage)
		a.logger.WarnContext(r.Context(), "delivery not recorded", "service", entry.Service, "err", err)
	case !known:
		a.logger.DebugContext(r.Context(), "delivery of another lineage not recorded", "service", entry.Service, "serial", said.Serial)
	}
}
