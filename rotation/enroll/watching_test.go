package enroll_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// holder answers GET /watch of an authority by the contract of [stepapi.WatchResponse]. Its
// only other knowledge is the lists, whose tag the test gives.
type holder struct {
	ca *authority

	mu      sync.Mutex
	wake    chan struct{} // closed by each change
	order   *stepapi.WatchRenewal
	ordered time.Time     // certificates from before have to follow the order
	refuse  int           // status of all answers, 0 for good ones
	cut     time.Duration // a request that is held for longer is cut, as by a proxy; 0: never
	asked   []asked
	held    int // requests that are held now
}

// asked is one request.
type asked struct {
	at                  time.Time
	serial              string
	trust, lists, order string
	wait                time.Duration
	remote              string
}

// hold makes the authority of the world hold requests.
func (w *world) hold() *holder {
	h := &holder{ca: w.ca, wake: make(chan struct{})}
	w.ca.mu.Lock()
	defer w.ca.mu.Unlock()
	w.ca.answer = h.serve
	return h
}

// changed wakes the requests, after edit.
func (h *holder) changed(edit func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if edit != nil {
		edit()
	}
	close(h.wake)
	h.wake = make(chan struct{})
}

func (h *holder) serve(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != stepapi.Prefix+stepapi.PathWatch {
		return false
	}
	q := r.URL.Query()
	seconds, err := strconv.Atoi(q.Get("wait"))
	if err != nil || len(r.TLS.VerifiedChains) == 0 {
		answer(w, http.StatusBadRequest, stepapi.Error{Message: "no wait, or no certificate"})
		return true
	}
	leaf := r.TLS.VerifiedChains[0][0]
	h.mu.Lock()
	h.asked = append(h.asked, asked{time.Now(), leaf.SerialNumber.String(), q.Get("trust"), q.Get("lists"), q.Get("renewal"), time.Duration(seconds) * time.Second, r.RemoteAddr})
	h.held++
	h.mu.Unlock()
	defer func() { h.mu.Lock(); h.held--; h.mu.Unlock() }()
	over := time.NewTimer(time.Duration(seconds) * time.Second)
	defer over.Stop()
	h.mu.Lock()
	var cut <-chan time.Time // never ready if nothing is cut
	if h.cut > 0 {
		cut = time.After(h.cut)
	}
	h.mu.Unlock()
	for {
		h.mu.Lock()
		wake, refuse, out, order := h.wake, h.refuse, h.now(), h.order
		if order != nil && leaf.NotBefore.Before(h.ordered) && q.Get("renewal") != strconv.FormatInt(order.ID, 10) {
			out.Renewal = order
		}
		h.mu.Unlock()
		if refuse != 0 {
			answer(w, refuse, stepapi.Error{Message: "not now"})
			return true
		}
		if out.Renewal != nil || out.Trust != q.Get("trust") || out.Lists != q.Get("lists") {
			answer(w, http.StatusOK, out)
			return true
		}
		select {
		case <-wake:
		case <-over.C:
			answer(w, http.StatusOK, out)
			return true
		case <-r.Context().Done():
			return true
		case <-cut:
			panic(http.ErrAbortHandler)
		}
	}
}

// now returns what the authority serves. h.mu is held.
func (h *holder) now() stepapi.WatchResponse {
	return stepapi.WatchResponse{Trust: stepapi.TrustDigest(h.ca.bundle()), Lists: strings.Trim(h.ca.listsTag(), `"`)}
}

func (h *holder) requests() []asked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.asked)
}

func (h *holder) holding() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// TestWatchTellsOfChanges expects that a changed bundle and a revocation are in effect within
// seconds, that the next request reports them, and that a quiet hour has few requests.
func TestWatchTellsOfChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		h := w.hold()
		src := w.source()
		stop := w.watch(src)
		time.Sleep(2 * time.Minute)
		if st := src.Status(); !st.Watching || st.WatchingSince.IsZero() || h.holding() != 1 {
			t.Fatalf("not watching: %+v", st)
		}
		before := len(h.requests())
		time.Sleep(time.Hour)
		if n := len(h.requests()) - before; n < 11 || n > 15 {
			t.Errorf("%d requests in a quiet hour", n)
		}
		root := w.ca.addRoot(t)
		h.changed(nil)
		time.Sleep(2 * time.Second)
		if !slices.ContainsFunc(w.last().Roots, root.Equal) {
			t.Error("a new root is not in effect after 2 s")
		}
		if all := h.requests(); all[len(all)-1].trust != stepapi.TrustDigest(w.ca.bundle()) || h.holding() != 1 {
			t.Error("the new bundle was not reported")
		}
		victim := w.ca.certificates()[0]
		w.ca.revoke(victim)
		h.changed(nil)
		time.Sleep(2 * time.Second)
		if !isRevoked(w.last(), victim) {
			t.Error("a revocation is not in effect after 2 s")
		}
		if st := src.Status(); !st.Watching || time.Since(st.WatchAnswered) > 5*time.Second {
			t.Errorf("status %+v", st)
		}
		stop()
		w.check()
		synctest.Wait() // the handler hears of the end of its connection
		if h.holding() != 0 {
			t.Error("a request is held after the end")
		}
	})
}

// TestWatchRenewsByOrder expects one renewal for an order, within its time, and that the next
// request is sent with the new certificate over a new connection.
func TestWatchRenewsByOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		h := w.hold()
		src := w.source()
		stop := w.watch(src)
		time.Sleep(10 * time.Minute)
		first := w.last().Certificate.Leaf
		h.changed(func() {
			h.order, h.ordered = &stepapi.WatchRenewal{ID: 7, Within: 30}, time.Now()
		})
		time.Sleep(31 * time.Second)
		second := w.last().Certificate.Leaf
		if second.Equal(first) {
			t.Fatalf("not renewed within the time of the order; status %+v", src.Status())
		}
		if st := src.Status(); st.OrderedRenewal != 7 || !st.Watching {
			t.Errorf("status %+v", st)
		}
		all := h.requests()
		if last := all[len(all)-1]; last.serial != second.SerialNumber.String() || last.order != "7" || h.holding() != 1 {
			t.Errorf("the last request is of %s with order %s, %d are held", last.serial, last.order, h.holding())
		}
		time.Sleep(2 * time.Hour)
		if !w.last().Certificate.Leaf.Equal(second) {
			t.Error("renewed again for the same order")
		}
		h.changed(func() { h.order, h.ordered = &stepapi.WatchRenewal{ID: 8}, time.Now() })
		time.Sleep(6 * time.Second)
		if w.last().Certificate.Leaf.Equal(second) {
			t.Error("an order for now was not followed")
		}
		third := w.last().Certificate.Leaf
		// After a restore of the record, ids begin again at a lower one.
		h.changed(func() { h.order, h.ordered = &stepapi.WatchRenewal{ID: 3, Nonce: "restored"}, time.Now() })
		time.Sleep(6 * time.Second)
		if w.last().Certificate.Leaf.Equal(third) {
			t.Error("an order of a restored record was not followed")
		}
		stop()
		w.check()
	})
}

// TestWatchFallsBack expects that a source polls as before where the authority does not know
// the request, asks it once an hour, and says so once.
func TestWatchFallsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		src := w.source()
		stop := w.watch(src)
		time.Sleep(10*time.Hour + time.Minute)
		if n := w.ca.count(stepapi.PathWatch); n < 9 || n > 13 {
			t.Errorf("%d requests in ten hours", n)
		}
		if st := src.Status(); st.Watching || st.WatchError == "" || st.TrustFailures+st.RevokedFailures != 0 {
			t.Errorf("status %+v", st)
		}
		if n := strings.Count(w.log.String(), "polling only"); n != 1 {
			t.Errorf("%d lines say that it polls", n)
		}
		h := w.hold() // a newer authority
		time.Sleep(time.Hour + 10*time.Minute)
		if !src.Status().Watching || h.holding() != 1 {
			t.Error("a newer authority is not noticed within an hour")
		}
		stop()
		w.check()
	})
}

// TestWatchBehindAProxy expects that a source whose requests are cut after a minute sends
// shorter ones, so that it is told of changes all the time, and says nothing of it.
func TestWatchBehindAProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		h := w.hold()
		h.cut = time.Minute
		src := w.source()
		stop := w.watch(src)
		time.Sleep(5 * time.Minute)
		away := 0
		for range 3600 {
			time.Sleep(time.Second)
			if h.holding() == 0 {
				away++
			}
		}
		if away > 180 {
			t.Errorf("no request was held for %d of 3600 s", away)
		}
		if st := src.Status(); !st.Watching {
			t.Errorf("status %+v", st)
		}
		if strings.Contains(w.log.String(), "polling only") {
			t.Error("the log says that it polls only")
		}
		stop()
		w.check()
	})
}

// TestWatchPollOnly expects no request.
func TestWatchPollOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.cfg.PollOnly = true
		h := w.hold()
		stop := w.watch(w.source())
		time.Sleep(3 * time.Hour)
		if n := len(h.requests()); n != 0 {
			t.Errorf("%d requests", n)
		}
		stop()
		w.check()
	})
}

// TestWatchMakesNoLoop expects few requests of a source that cannot put an announced change
// into effect, and that it takes it when it can.
func TestWatchMakesNoLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		h := w.hold()
		src := w.source()
		stop := w.watch(src)
		time.Sleep(10 * time.Minute)
		w.setRefuse(context.DeadlineExceeded) // the gate refuses every candidate
		root := w.ca.addRoot(t)
		before := len(h.requests())
		h.changed(nil)
		time.Sleep(time.Hour)
		if n := len(h.requests()) - before; n < 3 || n > 60 {
			t.Errorf("%d requests in an hour", n)
		}
		w.setRefuse(nil)
		time.Sleep(time.Hour + 10*time.Minute) // the refresh of the bundle backs off too
		if !slices.ContainsFunc(w.last().Roots, root.Equal) {
			t.Error("the bundle is not in effect")
		}
		if h.holding() != 1 {
			t.Error("no request is held")
		}
		stop()
	})
}

// TestWatchNoHerd expects that the requests of a fleet spread over seconds when their
// authority is back, and that all are held again.
func TestWatchNoHerd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const fleet = 80
		w := newWorld(t, 24*time.Hour)
		h := w.hold()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for range fleet {
			cfg := w.cfg
			cfg.Dir, cfg.InMemory, cfg.Token, cfg.KeyType = "", true, once(w.ca.token("ingester", "ingester")), "Ed25519"
			src, err := enroll.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { _ = src.Watch(ctx, func(rotation.Material) error { return nil }) })
		}
		time.Sleep(5 * time.Minute)
		if n := h.holding(); n != fleet {
			t.Fatalf("%d of %d are held", n, fleet)
		}
		h.changed(func() { h.refuse = http.StatusServiceUnavailable })
		time.Sleep(10 * time.Millisecond)
		back := time.Now()
		h.changed(func() { h.refuse, h.asked = 0, nil })
		time.Sleep(15 * time.Second)
		in := map[int]int{}
		for _, r := range h.requests() {
			in[int(r.at.Sub(back)/(500*time.Millisecond))]++
		}
		for slot, n := range in {
			if n > fleet/4 {
				t.Errorf("%d of %d requests in half a second, %d after the start", n, fleet, slot)
			}
		}
		if n := h.holding(); n != fleet {
			t.Errorf("%d of %d are held again", n, fleet)
		}
		cancel()
		running.Wait()
	})
}

// FuzzWatchAnswer: an answer that is taken has a digest, a tag that fits into a header and a
// query, and an order that can be computed with.
func FuzzWatchAnswer(f *testing.F) {
	good, err := json.Marshal(stepapi.WatchResponse{Trust: stepapi.TrustDigest([]*x509.Certificate{{}}), Lists: "ab", Renewal: &stepapi.WatchRenewal{ID: 1, Within: 2.5}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"trust":"` + strings.Repeat("0", 64) + `","lists":"\u0000"}`))
	f.Add([]byte(`{"renewal":{"within":1e308}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := enroll.ParseWatch(body)
		if err != nil {
			return
		}
		if len(r.Trust) != 64 || r.Lists == "" || strings.ContainsAny(r.Lists, " \"\r\n\x00") {
			t.Errorf("taken: %+v", r)
		}
		if o := r.Renewal; o != nil && (o.ID <= 0 || time.Duration(o.Within*float64(time.Second)) < 0) {
			t.Errorf("an order of %v seconds", o.Within)
		}
	})
}
