package ca

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/artstore/artstore-pki/ca/internal/ari"
	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/watch"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// An order to renew is for certificates that must be replaced before it is their time: the
// key of their issuer was stolen, or their kind of key is not good enough any more. Services
// that wait (GET /watch) hear of it at once, ACME clients with their next look (RFC 9773).
// Who has not followed is named until its certificate ends. docs/design/0033-forced-renewal.md

const (
	// maxWithin is the longest time that an order may give.
	maxWithin = 30 * 24 * time.Hour
	// maxPending is how many holders a status names.
	maxPending = record.MaxPage
)

// Names for users of this module of what goes over the wire.
type (
	// RenewalOrder says which certificates renew, and within what time.
	RenewalOrder = stepapi.RenewalOrder
	// RenewalStatus says how far an order was followed, and by whom not.
	RenewalStatus = stepapi.RenewalStatus
)

// Errors of [Record.ForceRenewal] that callers match.
var (
	ErrNoHolders     = errors.New("no service holds a certificate that matches")
	ErrTooManyOrders = store.ErrTooManyOrders
	ErrOrder         = errors.New("the order is not valid")
)

// ForceRenewal orders in the name of the operator that all certificates that match renew
// within order.Within. A running authority tells the services at once. With order.DryRun
// nothing is recorded, and the id of the status is 0. Errors: [ErrOrder], [ErrNoHolders],
// [ErrTooManyOrders], [record.ErrNotFound] for an issuer or a serial that is unknown.
func (r *Record) ForceRenewal(ctx context.Context, order RenewalOrder) (RenewalStatus, error) {
	return r.forceRenewal(ctx, operator, order)
}

func (r *Record) forceRenewal(ctx context.Context, by string, order stepapi.RenewalOrder) (status stepapi.RenewalStatus, err error) {
	o, err := r.resolveOrder(ctx, order)
	if err != nil {
		return status, fmt.Errorf("ordering a renewal: %w", err)
	}
	o.Caller = by
	holders, err := r.holdersOf(ctx, o)
	if err != nil {
		return status, err
	}
	o.Matched = len(holders)
	if o.Matched == 0 {
		return status, fmt.Errorf("ordering a renewal: %w", ErrNoHolders)
	}
	if !order.DryRun {
		if o.ID, err = r.store.OrderRenewal(ctx, o); err != nil {
			return status, err
		}
	}
	return renewalStatus(o, holders, o.At)
}

// resolveOrder checks an order, and turns its words into what the record has.
func (r *Record) resolveOrder(ctx context.Context, order stepapi.RenewalOrder) (o record.RenewalOrder, err error) {
	bad := func(format string, args ...any) (record.RenewalOrder, error) {
		return o, fmt.Errorf("%w: "+format, append([]any{ErrOrder}, args...)...)
	}
	within, err := humantime.Parse(order.Within)
	if err != nil || within <= 0 || within > maxWithin {
		return bad("within %.40q: want a time such as 30s or 2h, %s at most", order.Within, humantime.Format(maxWithin))
	}
	if order.KeyType != "" && !slices.Contains(keytype.All, order.KeyType) {
		return bad("key type %.40q: want one of %s", order.KeyType, strings.Join(keytype.All, ", "))
	}
	if order.Issuer != "" {
		if o.Issuer, err = r.Issuer(ctx, order.Issuer); err != nil {
			return o, err
		}
	}
	if order.Serial != "" {
		c, err := r.Show(ctx, order.Serial)
		if err != nil {
			return o, err
		}
		o.Lineage = c.Lineage
	}
	order.Note, order.Service = clip(order.Note), clip(order.Service)
	o.Service, o.KeyType = order.Service, order.KeyType
	o.At = time.Now().UTC().Truncate(time.Millisecond)
	o.By = o.At.Add(within)
	o.Wanted, err = json.Marshal(order)
	return o, err
}

// holdersOf returns whom an order concerns, kind of key included.
func (r *Record) holdersOf(ctx context.Context, o record.RenewalOrder) ([]record.RenewalHolder, error) {
	list, err := r.store.Holders(ctx, o)
	if err != nil || o.KeyType == "" {
		return list, err
	}
	return slices.DeleteFunc(list, func(h record.RenewalHolder) bool {
		leaf, parseErr := x509.ParseCertificate(h.Certificate.DER)
		if parseErr != nil {
			err = fmt.Errorf("reading certificate %s: %w", h.Certificate.Serial, parseErr)
			return true
		}
		return keytype.Of(leaf.PublicKey) != o.KeyType
	}), err
}

// Renewals returns the orders that are open, the newest first: those that somebody has not
// followed yet, and those whose time is not over.
func (r *Record) Renewals(ctx context.Context) ([]RenewalStatus, error) {
	orders, err := r.store.RenewalOrders(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]stepapi.RenewalStatus, 0, len(orders))
	now := time.Now()
	for _, o := range slices.Backward(orders) {
		holders, err := r.holdersOf(ctx, o)
		if err != nil {
			return nil, err
		}
		status, err := renewalStatus(o, holders, now)
		if err != nil {
			return nil, err
		}
		if !done(status, now) {
			out = append(out, status)
		}
	}
	return out, nil
}

// done reports whether nothing is left of an order.
func done(s stepapi.RenewalStatus, now time.Time) bool { return len(s.Pending) == 0 && now.After(s.By) }

// renewalStatus counts who has followed an order, and names the others. A holder whose
// certificate has ended meanwhile is neither.
func renewalStatus(o record.RenewalOrder, holders []record.RenewalHolder, now time.Time) (s stepapi.RenewalStatus, err error) {
	s = stepapi.RenewalStatus{ID: o.ID, At: o.At, By: o.By, Caller: o.Caller, Matched: o.Matched}
	if err := json.Unmarshal(o.Wanted, &s.Order); err != nil {
		return s, fmt.Errorf("reading order %d: %w", o.ID, err)
	}
	for _, h := range holders {
		c := h.Certificate
		switch {
		case h.Renewed:
			s.Renewed++
		case now.Before(c.NotAfter) && len(s.Pending) < maxPending:
			s.Pending = append(s.Pending, trust.HolderOf(c, h.LastSeen, c.NotAfter))
		}
	}
	return s, nil
}

// asRecord is the record of a running authority, for what its operators and its clients with
// the rights of operators do in the same way.
func (a *Authority) asRecord() *Record {
	return &Record{store: a.record, acme: a.acmeRecord, dir: StateDir(a.files.Path)}
}

// postRenewals answers POST /renewals of a service that is an operator.
func (a *Authority) postRenewals(w http.ResponseWriter, r *http.Request) error {
	c, err := a.authorizePeer(r, actOrder)
	if err != nil {
		return err
	}
	var order stepapi.RenewalOrder
	if err := readOrder(r, &order); err != nil {
		return err
	}
	status, err := a.asRecord().forceRenewal(r.Context(), c.name, order)
	switch {
	case errors.Is(err, ErrOrder):
		return denial.BadRequest("%v", err)
	case errors.Is(err, ErrNoHolders):
		return &denial.RequestError{Status: http.StatusNotFound, Text: err.Error()}
	case errors.Is(err, ErrTooManyOrders):
		return &denial.RequestError{Status: http.StatusConflict, Text: err.Error()}
	case err != nil:
		return err
	}
	if order.DryRun {
		writeJSON(w, http.StatusOK, status)
		return nil
	}
	a.ordered.send()
	a.writeAudit(r.Context(), c, auditlog.Line{Action: string(actOrder), Outcome: auditlog.Done, Service: order.Service, Count: status.Matched})
	a.logger.InfoContext(r.Context(), "renewal ordered", "order", status.ID, "holders", status.Matched, "by", status.By, "caller", c.name)
	writeJSON(w, http.StatusCreated, status)
	return nil
}

// getRenewals answers GET /renewals of a service that is an operator.
func (a *Authority) getRenewals(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.authorizePeer(r, actOrder); err != nil {
		return err
	}
	list, err := a.asRecord().Renewals(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// sweepRenewals removes the orders of which nothing is left.
func (a *Authority) sweepRenewals(ctx context.Context, orders []record.RenewalOrder) error {
	now := time.Now()
	for _, o := range orders {
		if now.Before(o.By) {
			continue
		}
		holders, err := a.asRecord().holdersOf(ctx, o)
		if err != nil {
			return err
		}
		status, err := renewalStatus(o, holders, now)
		if err != nil {
			return err
		}
		if !done(status, now) {
			continue
		}
		if err := a.record.DropRenewalOrder(ctx, o.ID); err != nil {
			return err
		}
		a.logger.InfoContext(ctx, "an order to renew is closed", "order", o.ID, "holders", o.Matched, "renewed", status.Renewed)
	}
	return nil
}

// Renewal information (RFC 9773): when a certificate is to be renewed. Clients of ACME learn
// of an order this way, and so does everybody who has seen the certificate.

const (
	// leastRetry and mostRetry bound when a client asks again: after a hundredth of the life
	// of its certificate.
	leastRetry, mostRetry = time.Minute, 6 * time.Hour
)

// renewalInfo returns the window of the formula that our own clients renew by. A certificate
// that was revoked is to be renewed at once, and one that an order concerns within the order.
func (a *Authority) renewalInfo(ctx context.Context, id ari.ID) (info ari.Info, err error) {
	entry, err := a.record.Get(ctx, id.Serial)
	if errors.Is(err, record.ErrNotFound) || err == nil && entry.Issuer != id.Issuer {
		return info, &denial.RequestError{Status: http.StatusNotFound, Text: "the certificate is not in the record of this authority"}
	}
	if err != nil {
		return info, err
	}
	info.RetryAfter = min(max(entry.NotAfter.Sub(entry.NotBefore)/100, leastRetry), mostRetry)
	info.Window.Start, info.Window.End = lifetime.RenewalWindow(entry.NotBefore, entry.NotAfter)
	if entry.Revocation != nil {
		info.Window = ari.Window{Start: entry.Revocation.RevokedAt, End: entry.Revocation.RevokedAt.Add(time.Second)}
		return info, nil
	}
	o, err := a.orderFor(ctx, entry)
	if o != nil && o.By.Before(info.Window.End) {
		info.Window = ari.Window{Start: o.At, End: o.By}
	}
	return info, err
}

// orderFor returns the order that concerns a certificate, or nil.
func (a *Authority) orderFor(ctx context.Context, entry record.Certificate) (*watch.Order, error) {
	orders, err := a.record.RenewalOrders(ctx)
	if err != nil || len(orders) == 0 {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(entry.DER)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s: %w", entry.Serial, err)
	}
	v := watch.Values{Orders: watchOrders(orders)}
	return v.OrderFor(holderOf(entry, leaf), watch.Obeyed{}), nil
}

// watchOrders returns orders as those who wait are compared with them.
func watchOrders(orders []record.RenewalOrder) (out []watch.Order) {
	for _, o := range orders {
		out = append(out, watch.Order{ID: o.ID, Nonce: o.Nonce, Issuer: o.Issuer, Service: o.Service, KeyType: o.KeyType, Lineage: o.Lineage, At: o.At, By: o.By})
	}
	return out
}

// holderOf returns the holder of a certificate; leaf is that of the entry.
func holderOf(entry record.Certificate, leaf *x509.Certificate) watch.Holder {
	return watch.Holder{Lineage: entry.Lineage, Service: entry.Service, Issuer: entry.Issuer, IssuedAt: entry.IssuedAt, KeyType: keytype.Of(leaf.PublicKey)}
}

// getRenewalInfo answers GET /renewal-info/{id} like the resource of ACME, without ACME.
func (a *Authority) getRenewalInfo(w http.ResponseWriter, r *http.Request) error {
	id, err := ari.Parse(chi.URLParam(r, "id"))
	if err != nil {
		return denial.BadRequest("%v", err)
	}
	info, err := a.renewalInfo(r.Context(), id)
	if err != nil {
		return err
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(info.RetryAfter.Seconds())))
	writeJSON(w, http.StatusOK, info)
	return nil
}
