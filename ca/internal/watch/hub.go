package watch

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/lru"
)

// Reason is why a request was answered. It is a label of a metric: the set is closed.
type Reason string

// Reasons that callers treat in their own way, and those that are only counted.
const (
	ReasonReplaced Reason = "replaced" // newer requests of the lineage wait
	ReasonFull     Reason = "full"     // too many requests wait
	ReasonClosed   Reason = "closed"   // the authority stops, or has not begun
	ReasonGone     Reason = "gone"     // the client has left

	reasonTrust   Reason = "trust"
	reasonLists   Reason = "lists"
	reasonRenewal Reason = "renewal"
	reasonWait    Reason = "wait" // nothing has changed
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{reasonTrust, reasonLists, reasonRenewal, reasonWait, ReasonReplaced, ReasonFull, ReasonClosed, ReasonGone}
}

// Answer is what a request gets.
type Answer struct {
	Reason Reason
	Values *Values // nil before the first [Hub.Publish] and after [Hub.Close]
	Order  *Order  // that the caller has to follow, or nil
}

// Hub has the requests that wait. It is safe for concurrent use. Its
// goroutines call the functions of [Ticket.Then]; [Hub.Close] waits for them.
type Hub struct {
	limit func() int

	mu      sync.Mutex // guards the fields below; never held across I/O
	values  *Values    // nil: nothing was published yet, or the hub is closed
	waiting map[*Ticket]struct{}
	by      map[string][]*Ticket // by lineage, the oldest first
	known   lru.Cache[string, *lineage]
	ended   []*Ticket // whose function has to be called, the oldest first
	workers int       // that call them
	idle    sync.WaitGroup
}

// maxWorkers is how many functions of tickets run at the same time.
const maxWorkers = 64

// lineage is what is remembered of one lineage.
type lineage struct {
	asked  Query     // the last request that was answered at once, without its wait
	told   *Values   // the answer to it
	until  time.Time // when the same request may be answered at once again
	report report
	served Delivery // that was reported last
}

type report struct {
	serial, trust string
	at            time.Time
}

// New returns a hub, in which limit says at each request how many may wait. The hub is
// closed until the first [Hub.Publish].
func New(limit func() int) *Hub {
	return &Hub{limit: limit, waiting: make(map[*Ticket]struct{}), by: make(map[string][]*Ticket)}
}

// Ticket is a request that waits. Its owner calls Wait, Then or Leave.
type Ticket struct {
	hub    *Hub
	holder Holder
	query  Query
	wait   time.Duration
	woken  chan Reason // of one: the reason of the end

	then   func(Answer) // set by Then and guarded by hub.mu, like the next two
	timer  *time.Timer
	answer Answer
}

// Enter answers a request at once, or returns a ticket to wait with.
func (h *Hub) Enter(holder Holder, q Query) (*Ticket, Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.values == nil {
		return nil, Answer{Reason: ReasonClosed}
	}
	t := &Ticket{hub: h, holder: holder, query: q, wait: cut(q.Wait), woken: make(chan Reason, 1)}
	if reason := t.lacks(h.values); reason != "" {
		if !h.repeats(t, time.Now()) {
			return nil, h.answer(t, reason)
		}
		// The caller was told, and asks again. It waits for the next change.
		t.query.Trust, t.query.Lists = h.values.Trust, h.values.Lists
		if o := h.values.OrderFor(holder, q.Renewal); o != nil {
			t.query.Renewal = h.values.Orders[len(h.values.Orders)-1].name()
		}
		t.wait = min(t.wait, again)
	}
	if t.wait == 0 {
		return nil, h.answer(t, reasonWait)
	}
	if len(h.waiting) >= h.limit() {
		return nil, Answer{Reason: ReasonFull, Values: h.values}
	}
	h.waiting[t] = struct{}{}
	list := append(h.by[holder.Lineage], t)
	h.by[holder.Lineage] = list
	if len(list) > PerLineage {
		h.wake(list[0], ReasonReplaced)
	}
	return t, Answer{}
}

func cut(wait time.Duration) time.Duration {
	return wait - time.Duration(rand.Float64()*jitter*float64(wait)) //nolint:gosec // G404: jitter, not a secret
}

// lacks returns what the caller of a ticket does not have of the values, "" if nothing.
func (t *Ticket) lacks(v *Values) Reason {
	switch {
	case v.OrderFor(t.holder, t.query.Renewal) != nil:
		return reasonRenewal
	case t.query.Trust != v.Trust:
		return reasonTrust
	case t.query.Lists != v.Lists:
		return reasonLists
	}
	return ""
}

// repeats reports whether the lineage was told the same a moment ago, and remembers this one.
func (h *Hub) repeats(t *Ticket, now time.Time) bool {
	q := t.query
	q.Wait = 0
	l := h.lineage(t.holder.Lineage)
	if l.asked == q && l.told == h.values && now.Before(l.until) {
		return true
	}
	l.asked, l.told, l.until = q, h.values, now.Add(again)
	return false
}

func (h *Hub) lineage(id string) *lineage {
	l, ok := h.known.Get(id)
	if !ok {
		l = &lineage{}
		h.known.Add(id, l, maxLineages)
	}
	return l
}

func (h *Hub) answer(t *Ticket, reason Reason) Answer {
	a := Answer{Reason: reason, Values: h.values}
	if h.values != nil {
		a.Order = h.values.OrderFor(t.holder, t.query.Renewal)
	}
	return a
}

// wake ends the wait of a ticket. The caller holds mu.
func (h *Hub) wake(t *Ticket, reason Reason) {
	if _, ok := h.waiting[t]; !ok {
		return
	}
	delete(h.waiting, t)
	rest := slices.DeleteFunc(h.by[t.holder.Lineage], func(o *Ticket) bool { return o == t })
	if h.by[t.holder.Lineage] = rest; len(rest) == 0 {
		delete(h.by, t.holder.Lineage)
	}
	if t.then == nil {
		t.woken <- reason // never blocks: a ticket is woken once
		return
	}
	t.timer.Stop()
	t.answer = h.answer(t, reason)
	h.ended = append(h.ended, t)
	if h.workers < maxWorkers {
		h.workers++
		h.idle.Go(h.work)
	}
}

func (h *Hub) work() {
	for {
		h.mu.Lock()
		if len(h.ended) == 0 {
			h.workers--
			h.ended = nil // the array was as long as the fleet
			h.mu.Unlock()
			return
		}
		t := h.ended[0]
		h.ended[0], h.ended = nil, h.ended[1:]
		h.mu.Unlock()
		t.then(t.answer)
	}
}

// Then has fn called with the answer: at once if there is one already, and otherwise later in a
// goroutine of the hub. It is for requests that no goroutine waits for: Wait must not be
// called. fn must not block.
func (t *Ticket) Then(fn func(Answer)) {
	if answer, ok := t.leaveTo(fn); ok { // not by a goroutine of the hub: Close may have joined these
		fn(answer)
	}
}

// leaveTo leaves the ticket to fn, or returns the answer that came between Enter and now.
func (t *Ticket) leaveTo(fn func(Answer)) (answer Answer, ok bool) {
	h := t.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case reason := <-t.woken:
		return h.answer(t, reason), true
	default:
	}
	t.then = fn
	t.timer = time.AfterFunc(t.wait, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.wake(t, reasonWait)
	})
	return Answer{}, false
}

// Wait waits until a change concerns the caller, the wait is over, or ctx ends.
func (t *Ticket) Wait(ctx context.Context) Answer {
	timer := time.NewTimer(t.wait)
	defer timer.Stop()
	var reason Reason
	select {
	case reason = <-t.woken:
	case <-timer.C:
		reason = reasonWait
	case <-ctx.Done():
		reason = ReasonGone
	}
	t.Leave()
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	return t.hub.answer(t, reason)
}

// Longest is how long Wait takes at most.
func (t *Ticket) Longest() time.Duration { return t.wait }

// Shorten makes Wait return after d at the latest. It is called before Wait.
func (t *Ticket) Shorten(d time.Duration) { t.wait = max(0, min(t.wait, d)) }

// Leave gives the place of the ticket back. After Then the function is called, with
// [ReasonGone]. Leaving twice is harmless.
func (t *Ticket) Leave() {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	t.hub.wake(t, ReasonGone)
}

// Publish makes the values current, and wakes those whom the change concerns. It opens a hub
// that is new or closed.
func (h *Hub) Publish(v *Values) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.values = v
	for t := range h.waiting {
		if reason := t.lacks(v); reason != "" {
			h.wake(t, reason)
		}
	}
}

// Close answers all requests that wait, and every later one until the next Publish. It
// returns when the functions of all tickets have returned.
func (h *Hub) Close() {
	h.mu.Lock()
	h.values = nil
	for t := range h.waiting {
		h.wake(t, ReasonClosed)
	}
	h.mu.Unlock()
	h.idle.Wait()
}

// Waiting is how many requests wait.
func (h *Hub) Waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waiting)
}

// Report reports whether a report of a lineage has to be recorded: it says something else
// than the one before, or that was longer ago than every. See [Hub.Forget].
func (h *Hub) Report(id, serial, trust string, every time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, now := h.lineage(id), time.Now()
	if old := l.report; old.serial == serial && old.trust == trust && now.Sub(old.at) < every && !now.Before(old.at) {
		return false
	}
	l.report = report{serial, trust, now}
	return true
}

// Forget drops the last report of a lineage, because it could not be recorded.
func (h *Hub) Forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lineage(id).report = report{}
}

// ReportDelivery reports whether a delivery that a lineage has reported has to be recorded: it is
// another one than before. For is not compared. See [Hub.ForgetDelivery].
func (h *Hub) ReportDelivery(id string, d Delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.For = 0
	l := h.lineage(id)
	changed := l.served != d
	l.served = d
	return changed
}

// ForgetDelivery drops the last delivery of a lineage, because it could not be recorded.
func (h *Hub) ForgetDelivery(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lineage(id).served = Delivery{}
}
