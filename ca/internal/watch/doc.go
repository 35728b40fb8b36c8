// Package watch holds the requests of services that wait for a change: of the trust bundle,
// of the revocation lists, or of an order to renew. It knows no HTTP, no database and no
// certificates: the authority publishes what there is, and the hub decides who has to hear
// of it.
//
//	hub := watch.New(func() int { return 10_000 })
//	hub.Publish(&watch.Values{Trust: digest, Lists: tag, Orders: open})
//	ticket, answer := hub.Enter(holder, query)
//	if ticket != nil {
//		answer = ticket.Wait(ctx)
//	}
//
// Invariants:
//
//   - Enter answers at once if the caller lacks something (TestAnswersAtOnce), and a change
//     between Enter and Wait is not lost (TestChangeIsNotLost).
//   - A change wakes those whom it concerns and no other (TestChangeWakesWhomItConcerns).
//   - The number of waiting requests is bounded, in all and for one lineage, whose newest
//     ones stay (TestBounds).
//   - A caller that repeats a request, although the answer told it of a change, waits: a
//     client that cannot take a new bundle makes no loop (TestRepeatedRequestWaits).
//   - After Close every request is answered (TestClose).
package watch

import (
	"slices"
	"time"
)

// Bounds of what waits.
const (
	DefaultWatchers = 10_000            // how many requests wait at a time
	PerLineage      = 2                 // of one lineage: that of a process, and that of its successor
	MaxWait         = 300 * time.Second // the longest wait, and the default

	again = 10 * time.Second // how long a request waits that asks for what it was told already
	// jitter is the share by which a wait is cut at most, so that requests that came
	// together do not end together.
	jitter      = 0.2
	maxLineages = 1 << 15 // bounds the memory of what lineages were told last, some 300 bytes each
)

// Values are what can change. They are immutable once published.
type Values struct {
	Trust  string  // digest of the trust bundle, see stepapi.TrustDigest
	Lists  string  // ETag of GET /revoked, without its quotes
	Orders []Order // those that are open, the oldest first
}

// Equal reports whether two values say the same.
func (v *Values) Equal(o *Values) bool {
	return v.Trust == o.Trust && v.Lists == o.Lists && slices.Equal(v.Orders, o.Orders)
}

// Order is an order to renew, as far as it says whom it is for. Empty fields are for all.
type Order struct {
	ID      int64
	Nonce   string // random; empty in orders of older versions
	Issuer  string // subject key id of the issuer, in hex
	Service string
	KeyType string
	Lineage string
	At, By  time.Time // certificates up to At are to be renewed by By
}

// Holder is who waits: the certificate of the connection.
type Holder struct {
	Lineage  string
	Service  string
	Issuer   string // subject key id of the issuer, in hex
	KeyType  string
	IssuedAt time.Time
}

// Concerns reports whether the holder has to renew by the order.
func (o Order) Concerns(h Holder) bool {
	matches := func(want, have string) bool { return want == "" || want == have }
	return !h.IssuedAt.After(o.At) && matches(o.Issuer, h.Issuer) && matches(o.Service, h.Service) &&
		matches(o.KeyType, h.KeyType) && matches(o.Lineage, h.Lineage)
}

// Obeyed is the order that a holder has obeyed last. The zero value is none.
type Obeyed struct {
	ID    int64
	Nonce string
}

func (o Order) name() Obeyed { return Obeyed{o.ID, o.Nonce} }

// OrderFor returns the order by which the holder has to renew the earliest, among those
// after the one that it has obeyed, or nil.
func (v *Values) OrderFor(h Holder, obeyed Obeyed) *Order {
	var first *Order
	since := v.since(obeyed)
	for i := range v.Orders {
		if o := &v.Orders[i]; o.ID > since && o.Concerns(h) && (first == nil || o.By.Before(first.By)) {
			first = o
		}
	}
	return first
}

// since returns the id after which orders are new to a holder. If its order is not open, the
// record was restored from a backup, or the holder has renewed and older orders are not for it.
func (v *Values) since(obeyed Obeyed) int64 {
	if obeyed.Nonce == "" || slices.ContainsFunc(v.Orders, func(o Order) bool { return o.name() == obeyed }) {
		return obeyed.ID
	}
	return 0
}
