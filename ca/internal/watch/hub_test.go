package watch_test

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/watch"
)

const (
	reasonTrust   watch.Reason = "trust"
	reasonLists   watch.Reason = "lists"
	reasonRenewal watch.Reason = "renewal"
	reasonWait    watch.Reason = "wait"

	trustA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	trustB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func newHub(limit int) *watch.Hub {
	h := watch.New(func() int { return limit })
	h.Publish(&watch.Values{Trust: trustA, Lists: "1"})
	return h
}

func holder(lineage string) watch.Holder {
	return watch.Holder{Lineage: lineage, Service: "s" + lineage, Issuer: "i", KeyType: "EC-P256", IssuedAt: time.Now()}
}

func current() watch.Query { return watch.Query{Trust: trustA, Lists: "1", Wait: watch.MaxWait} }

// start enters with a query that has to wait, and returns where the answer comes.
func start(t *testing.T, h *watch.Hub, who watch.Holder, q watch.Query) <-chan watch.Answer {
	t.Helper()
	ticket, answer := h.Enter(who, q)
	if ticket == nil {
		t.Fatalf("answered at once: %+v", answer)
	}
	out := make(chan watch.Answer, 1)
	go func() { out <- ticket.Wait(t.Context()) }()
	return out
}

// TestAnswersAtOnce: whoever lacks something does not wait.
func TestAnswersAtOnce(t *testing.T) {
	h := newHub(10)
	h.Publish(&watch.Values{Trust: trustA, Lists: "1", Orders: []watch.Order{{ID: 3, Service: "sx", At: time.Now().Add(time.Hour), By: time.Now().Add(2 * time.Hour)}}})
	for name, c := range map[string]struct {
		who  watch.Holder
		edit func(*watch.Query)
		want watch.Reason
	}{
		"another bundle": {holder("a"), func(q *watch.Query) { q.Trust = trustB }, reasonTrust},
		"no bundle":      {holder("b"), func(q *watch.Query) { q.Trust = "" }, reasonTrust},
		"other lists":    {holder("c"), func(q *watch.Query) { q.Lists = "0" }, reasonLists},
		"an order":       {holder("x"), func(q *watch.Query) { q.Trust = trustB }, reasonRenewal},
		"no wait":        {holder("d"), func(q *watch.Query) { q.Wait = 0 }, reasonWait},
	} {
		q := current()
		c.edit(&q)
		ticket, answer := h.Enter(c.who, q)
		if ticket != nil || answer.Reason != c.want || answer.Values.Trust != trustA || (answer.Order != nil) != (c.want == reasonRenewal) {
			t.Errorf("%s: %+v", name, answer)
		}
	}
	q := current()
	q.Renewal.ID = 3 // obeyed
	if ticket, answer := h.Enter(holder("x"), q); ticket == nil {
		t.Errorf("an order that was obeyed: %+v", answer)
	}
}

// TestChangeWakesWhomItConcerns: an order wakes those whom it is for, and a change of
// lists or trust wakes all.
func TestChangeWakesWhomItConcerns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(10)
		a, b := start(t, h, holder("a"), current()), start(t, h, holder("b"), current())
		time.Sleep(time.Second)
		order := watch.Order{ID: 1, Service: "sa", At: time.Now(), By: time.Now().Add(30 * time.Second)}
		h.Publish(&watch.Values{Trust: trustA, Lists: "1", Orders: []watch.Order{order}})
		if got := <-a; got.Reason != reasonRenewal || got.Order == nil || got.Order.ID != 1 {
			t.Errorf("a: %+v", got)
		}
		synctest.Wait()
		select {
		case got := <-b:
			t.Errorf("b was woken: %+v", got)
		default:
		}
		h.Publish(&watch.Values{Trust: trustA, Lists: "2"})
		if got := <-b; got.Reason != reasonLists || got.Values.Lists != "2" {
			t.Errorf("b: %+v", got)
		}
	})
}

// TestOrderConcerns: each field of an order restricts it, and a certificate that is newer
// than the order has followed it.
func TestOrderConcerns(t *testing.T) {
	who, now := holder("a"), time.Now().Add(time.Second)
	for name, c := range map[string]struct {
		order watch.Order
		want  bool
	}{
		"all":             {watch.Order{At: now}, true},
		"issuer":          {watch.Order{At: now, Issuer: "i"}, true},
		"another issuer":  {watch.Order{At: now, Issuer: "j"}, false},
		"another service": {watch.Order{At: now, Issuer: "i", Service: "sb"}, false},
		"another kind":    {watch.Order{At: now, KeyType: "Ed25519"}, false},
		"lineage":         {watch.Order{At: now, Lineage: "a"}, true},
		"another lineage": {watch.Order{At: now, Lineage: "b"}, false},
		"followed":        {watch.Order{At: who.IssuedAt.Add(-1)}, false},
	} {
		if got := c.order.Concerns(who); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	v := &watch.Values{Orders: []watch.Order{{ID: 1, At: now, By: now.Add(time.Hour)}, {ID: 2, At: now, By: now.Add(time.Minute)}, {ID: 3, At: now, By: now.Add(time.Hour)}}}
	if o := v.OrderFor(who, watch.Obeyed{}); o == nil || o.ID != 2 {
		t.Errorf("the most urgent order: %+v", o)
	}
	if o := v.OrderFor(who, watch.Obeyed{ID: 2}); o == nil || o.ID != 3 {
		t.Errorf("after 2 was obeyed: %+v", o)
	}
}

// TestOrderAfterRestore: ids of orders begin again at a lower one when the record was restored
// from a backup. A holder that has obeyed a later order of before is told all the same, and one
// that names no nonce goes by the id.
func TestOrderAfterRestore(t *testing.T) {
	now := time.Now().Add(time.Second)
	before := watch.Order{ID: 8, Nonce: "a", At: now, By: now.Add(time.Hour)}
	v := &watch.Values{Orders: []watch.Order{{ID: 5, Nonce: "b", At: now, By: now.Add(time.Hour)}}}
	if o := v.OrderFor(holder("a"), watch.Obeyed{ID: 8, Nonce: "a"}); o == nil || o.ID != 5 {
		t.Errorf("an order of the restored record: %+v", o)
	}
	if o := v.OrderFor(holder("a"), watch.Obeyed{ID: 5, Nonce: "a"}); o == nil || o.ID != 5 {
		t.Errorf("an order with the id of another one: %+v", o)
	}
	for name, obeyed := range map[string]watch.Obeyed{"itself": {ID: 5, Nonce: "b"}, "a later one, by id": {ID: 8}} {
		if o := v.OrderFor(holder("a"), obeyed); o != nil {
			t.Errorf("a holder that has obeyed %s: %+v", name, o)
		}
	}
	v.Orders = append(v.Orders, before)
	if o := v.OrderFor(holder("a"), watch.Obeyed{ID: 8, Nonce: "a"}); o != nil {
		t.Errorf("an older order that is open still: %+v", o)
	}
}

// TestChangeIsNotLost: a change after Enter and before Wait is the answer of Wait.
func TestChangeIsNotLost(t *testing.T) {
	h := newHub(10)
	ticket, _ := h.Enter(holder("a"), current())
	h.Publish(&watch.Values{Trust: trustB, Lists: "1"})
	if got := ticket.Wait(t.Context()); got.Reason != reasonTrust || got.Values.Trust != trustB {
		t.Errorf("%+v", got)
	}
}

// TestBounds: requests beyond the limit are refused, and a third one of a lineage answers
// the first. Places are given back.
func TestBounds(t *testing.T) {
	h := newHub(3)
	first, _ := h.Enter(holder("a"), current())
	second, _ := h.Enter(holder("a"), current())
	third, _ := h.Enter(holder("a"), current())
	if got := first.Wait(t.Context()); got.Reason != watch.ReasonReplaced || got.Values == nil {
		t.Errorf("the oldest of a lineage: %+v", got)
	}
	if h.Waiting() != 2 {
		t.Fatalf("%d wait", h.Waiting())
	}
	if ticket, _ := h.Enter(holder("b"), current()); ticket == nil {
		t.Fatal("the place of the replaced request is not free")
	}
	if ticket, answer := h.Enter(holder("c"), current()); ticket != nil || answer.Reason != watch.ReasonFull {
		t.Errorf("beyond the limit: %+v", answer)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := second.Wait(gone); got.Reason != watch.ReasonGone {
		t.Errorf("a client that left: %+v", got)
	}
	third.Leave()
	third.Leave()
	if h.Waiting() != 1 {
		t.Errorf("%d wait", h.Waiting())
	}
}

// TestWaitEnds: a wait ends without a change, earlier than asked by a random part.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, began := newHub(10), time.Now()
		seen := map[time.Duration]bool{}
		for i := range 5 {
			if got := <-start(t, h, holder(strconv.Itoa(i)), current()); got.Reason != reasonWait {
				t.Errorf("%+v", got)
			}
			took := time.Since(began)
			if took > watch.MaxWait || took < watch.MaxWait*8/10 {
				t.Errorf("waited %s", took)
			}
			seen[took], began = true, time.Now()
		}
		if len(seen) < 2 {
			t.Error("all waits take the same time")
		}
		ticket, _ := h.Enter(holder("z"), current())
		ticket.Shorten(time.Second)
		if got := ticket.Wait(t.Context()); got.Reason != reasonWait || time.Since(began) != time.Second || ticket.Longest() != time.Second {
			t.Errorf("%+v after %s", got, time.Since(began))
		}
	})
}

// TestRepeatedRequestWaits: a caller that was told of a bundle and still has another one in
// effect waits some seconds, and hears of the next change.
func TestRepeatedRequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, old := newHub(10), current()
		old.Trust = trustB
		if ticket, answer := h.Enter(holder("a"), old); ticket != nil || answer.Reason != reasonTrust {
			t.Fatalf("%+v", answer)
		}
		began := time.Now()
		if got := <-start(t, h, holder("a"), old); got.Reason != reasonWait || got.Values.Trust != trustA {
			t.Errorf("%+v", got)
		}
		if took := time.Since(began); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("the repeated request waited %s", took)
		}
		time.Sleep(10 * time.Second)
		if ticket, answer := h.Enter(holder("a"), old); ticket != nil || answer.Reason != reasonTrust {
			t.Errorf("a while later: %+v", answer)
		}
		next := start(t, h, holder("a"), old)
		h.Publish(&watch.Values{Trust: trustA, Lists: "2"})
		if got := <-next; got.Reason != reasonLists {
			t.Errorf("%+v", got)
		}
	})
}

// TestClose: nobody waits at a hub that is closed or has nothing yet.
func TestClose(t *testing.T) {
	h := watch.New(func() int { return 10 })
	if ticket, answer := h.Enter(holder("a"), current()); ticket != nil || answer.Reason != watch.ReasonClosed {
		t.Errorf("before the first values: %+v", answer)
	}
	h.Publish(&watch.Values{Trust: trustA, Lists: "1"})
	ticket, _ := h.Enter(holder("a"), current())
	h.Close()
	if got := ticket.Wait(t.Context()); got.Reason != watch.ReasonClosed {
		t.Errorf("%+v", got)
	}
	if ticket, answer := h.Enter(holder("a"), current()); ticket != nil || answer.Reason != watch.ReasonClosed {
		t.Errorf("after Close: %+v", answer)
	}
}

// TestThen: a function gets the answer that Wait would have returned: of a change before and
// after it is given, of the end of the wait, of a client that leaves, and of the end of the hub,
// which waits for it.
func TestThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(1000)
		got := make(chan watch.Answer, 200)
		then := func(who watch.Holder) {
			ticket, _ := h.Enter(who, current())
			ticket.Then(func(a watch.Answer) { got <- a })
		}
		early, _ := h.Enter(holder("a"), current())
		h.Publish(&watch.Values{Trust: trustB, Lists: "1"})
		early.Then(func(a watch.Answer) { got <- a })
		if a := <-got; a.Reason != reasonTrust || a.Values.Trust != trustB {
			t.Errorf("a change before: %+v", a)
		}
		h.Publish(&watch.Values{Trust: trustA, Lists: "1"})
		then(holder("a"))
		if a := <-got; a.Reason != reasonWait {
			t.Errorf("%+v", a)
		}
		for i := range 200 {
			then(holder(strconv.Itoa(i)))
		}
		h.Publish(&watch.Values{Trust: trustA, Lists: "2"})
		for range 200 {
			if a := <-got; a.Reason != reasonLists {
				t.Errorf("%+v", a)
			}
		}
		h.Publish(&watch.Values{Trust: trustA, Lists: "1"})
		for _, before := range []bool{true, false} { // the client leaves before or after the function is given
			ticket, _ := h.Enter(holder("b"), current())
			if before {
				ticket.Leave()
			}
			ticket.Then(func(a watch.Answer) { got <- a })
			ticket.Leave()
			ticket.Leave()
			if a := <-got; a.Reason != watch.ReasonGone || h.Waiting() != 0 {
				t.Errorf("a client that left: %+v, %d wait", a, h.Waiting())
			}
		}
		then(holder("a"))
		h.Close()
		if a := <-got; a.Reason != watch.ReasonClosed || h.Waiting() != 0 {
			t.Errorf("%+v, %d wait", a, h.Waiting())
		}
	})
}

// TestThenAfterClose: a handler that had entered before the hub was closed gets its answer at once.
// Close has joined the goroutines of the hub, so none may begin.
func TestThenAfterClose(t *testing.T) {
	h := newHub(10)
	ticket, _ := h.Enter(holder("a"), current())
	h.Close()
	var got []watch.Answer
	ticket.Then(func(a watch.Answer) { got = append(got, a) })
	if len(got) != 1 || got[0].Reason != watch.ReasonClosed {
		t.Errorf("answers %+v", got)
	}
	ticket.Leave()
	if len(got) != 1 || h.Waiting() != 0 {
		t.Errorf("answers %+v, %d wait", got, h.Waiting())
	}
}

// TestReport: the same report is recorded once a minute, another one at once.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(10)
		report := func(serial, trust string) bool { return h.Report("a", serial, trust, time.Minute) }
		if !report("1", trustA) || report("1", trustA) || !report("1", trustB) || !report("2", trustB) || report("2", trustB) {
			t.Error("a change is not recorded, or no change is")
		}
		h.Forget("a")
		if !report("2", trustB) {
			t.Error("a report that could not be recorded is not recorded again")
		}
		time.Sleep(time.Minute)
		if !report("2", trustB) {
			t.Error("not recorded after a minute")
		}
	})
}

// TestParseQuery: an absent wait and a longer one are the longest.
func TestParseQuery(t *testing.T) {
	for text, want := range map[string]watch.Query{
		"":         {Wait: watch.MaxWait},
		"wait=0":   {},
		"wait=999": {Wait: watch.MaxWait},
		"trust=" + trustA + "&lists=x&renewal=7&nonce=n&wait=20": {Trust: trustA, Lists: "x", Renewal: watch.Obeyed{ID: 7, Nonce: "n"}, Wait: 20 * time.Second},
	} {
		v, _ := url.ParseQuery(text)
		if got, err := watch.ParseQuery(v); err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{"trust=x", "trust=" + trustA[1:] + "G", "renewal=-1", "renewal=x", "nonce=" + trustA + "0", "wait=-1", "wait=1.5", "wait=99999999999"} {
		v, _ := url.ParseQuery(text)
		if got, err := watch.ParseQuery(v); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// FuzzParseQuery: what is accepted is within the bounds.
func FuzzParseQuery(f *testing.F) {
	f.Add("trust=" + trustA + "&lists=x&renewal=7&nonce=n&wait=20")
	f.Add("wait=99999999999999999999")
	f.Add("served=4711&served_at=localhost:443&servers=2&served_for=3")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		var d watch.Delivery
		if d.Parse(v) && (d.For < 0 || d.Servers < 1 || d.Servers > 1000 || len(d.Serial) > 64 || len(d.Address) > 300 || strings.ContainsAny(d.Address, "\n\x1b ")) {
			t.Errorf("%q: %+v", text, d)
		}
		q, err := watch.ParseQuery(v)
		if err == nil && (q.Wait < 0 || q.Wait > watch.MaxWait || q.Renewal.ID < 0 || len(q.Renewal.Nonce) > 64 || len(q.Lists) > 64 || q.Trust != "" && len(q.Trust) != 64) {
			t.Errorf("%q: %+v", text, q)
		}
	})
}
