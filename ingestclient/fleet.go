package ingestclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// An element that is down is left alone for a time that doubles with each failure.
	downMin, downMax = time.Second, time.Minute
	// One upload finds out whether an element is back. A dial and a handshake that
	// hang are known by then.
	trialFor = 30 * time.Second
	// What an element refuses now, it may take after somebody has made room or changed its mode.
	refusedFor = time.Minute
)

// errTaken says that every element was asked already, or cannot take the content.
var errTaken = errors.New("no storage element is left")

// element is a Storage Element and what is known of it, guarded by fleet.mu; its
// address never changes and is read without.
type element struct {
	listed
	since    time.Time // the last failure in a row, if failures is above 0
	failures int
	aside    time.Time // not to be used before, while there is another
	deaf     bool      // it is well and sends no 100 Continue
	full     int64     // content of this size or more was refused, until roomy
	roomy    time.Time
}

// listed is an element as the configuration or a registry names it.
type listed struct {
	base     string // URL, without a slash at its end
	priority int    // the lowest goes first
	mode     string // edit, rw, ro, ar; "" if not known
	free     int64  // bytes; -1 if not known
}

func (e *element) files(rest string) string { return e.base + "/api/v1/files" + rest }

func (e *element) file(id string) string { return e.files("/" + url.PathEscape(id)) }

// fleet chooses the Storage Element for each upload: the first by priority, the
// emptiest of equal ones, and none that has just shown that it is down, full or
// in a mode that takes nothing, unless there is no other.
type fleet struct {
	*settings
	keeper *keeper

	mu       sync.Mutex // never held across I/O
	elements []*element
	listed   time.Time // when the list was last read
	listing  *flight
	fail     failure // of the last listing
}

func newFleet(s *settings, k *keeper) *fleet {
	f := &fleet{settings: s, keeper: k}
	for _, l := range s.storage {
		f.elements = append(f.elements, &element{listed: l})
	}
	return f
}

// need is what an upload asks of an element.
type need struct {
	size      int64
	retention string
	asked     map[*element]bool // not to be asked again
}

// pick returns the element to try next. It is errTaken when there is none, and
// the registry's failure when the list could not be had at all.
func (f *fleet) pick(ctx context.Context, n need) (*element, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	var best *element
	unfit := 0
	for _, e := range f.elements {
		switch {
		case n.asked[e]:
		case !e.fits(n.retention):
			unfit++
		case best == nil || e.compare(best, n.size, now) < 0:
			best = e
		}
	}
	switch {
	case best == nil && unfit > 0 && len(n.asked) == 0:
		return nil, fmt.Errorf("%w: none of the %d known ones", ErrMode, unfit)
	case best == nil:
		return nil, errTaken
	}
	// Whoever comes while this one finds out whether it is back goes elsewhere.
	if best.failures > 0 && !now.Before(best.aside) {
		best.aside = now.Add(trialFor)
	}
	return best, nil
}

// another reports whether pick would find one that is not in asked, besides at.
func (f *fleet) another(asked map[*element]bool, at *element, retention string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.elements, func(e *element) bool { return e != at && !asked[e] && e.fits(retention) })
}

// asksConsent reports whether e is to say 100 Continue before it gets a body.
func (f *fleet) asksConsent(e *element) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !e.deaf
}

func (f *fleet) setDeaf(e *element) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.deaf = true
	f.Logger.Info("storage element sends no 100 Continue", "url", e.base)
}

// fits reports whether the mode allows the upload. In ArtStore the mode decides
// how long content is kept: edit is temporary, rw is permanent.
func (e *element) fits(retention string) bool {
	switch e.mode {
	case "edit":
		return retention != retentionPermanent
	case "rw":
		return retention != retentionTemporary
	}
	return e.mode == ""
}

// takesUploads reports whether an element of this mode takes any.
func takesUploads(mode string) bool { return mode == "edit" || mode == "rw" }

// compare orders elements for content of the given size: what is set aside goes
// last, the one that is due first leading; then priority, then free space.
func (e *element) compare(o *element, size int64, now time.Time) int {
	if c := e.wait(size, now).Compare(o.wait(size, now)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(e.priority, o.priority), -cmp.Compare(e.free, o.free), strings.Compare(e.base, o.base))
}

// wait is the time from which e should be asked, zero for at once.
func (e *element) wait(size int64, now time.Time) time.Time {
	var at time.Time
	if now.Before(e.aside) {
		at = e.aside
	}
	if size >= e.full && now.Before(e.roomy) && e.roomy.After(at) {
		at = e.roomy
	}
	if e.free >= 0 && e.free < size && at.IsZero() {
		at = now // known to be too full, and that may be old news
	}
	return at
}

// down reports whether err is about the element and not about the content, the
// token or the caller.
func down(err error) bool {
	for _, sentinel := range []error{ErrConnection, ErrTLSPeer, ErrServer, ErrUnavailable, ErrStalled, ErrTooSlow, ErrNoAnswer} {
		if errors.Is(err, sentinel) {
			return !errors.Is(err, ErrTokenEndpoint) && !errors.Is(err, ErrClosed)
		}
	}
	return false
}

// learn takes note of how an upload of size bytes to e ended.
func (f *fleet) learn(e *element, size int64, err *RequestError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		f.back(e)
		if e.free >= 0 {
			e.free = max(0, e.free-size)
		}
	case errors.Is(err, ErrFull), errors.Is(err, ErrTooLarge):
		f.back(e)
		e.full, e.roomy = size, now.Add(refusedFor)
	case errors.Is(err, ErrMode):
		f.back(e)
		e.aside = now.Add(refusedFor)
	case down(err):
		// Uploads that run at the same time find one outage, not one each.
		if e.failures > 0 && now.Before(e.aside) && now.Sub(e.since) < downMin {
			return
		}
		e.failures++
		e.since = now
		span := min(downMax, downMin<<min(e.failures, 10))
		e.aside = now.Add(max(downMin+time.Duration(f.jitter()*float64(span-downMin)), min(err.retryAfter, f.MaxRetryAfter)))
		say := f.Logger.Debug
		if e.failures == 1 {
			say = f.Logger.Warn // an outage begins; back is its end
		}
		say("storage element fails", "url", e.base, "failures", e.failures, "err", err)
	case err.Status != 0: // it refuses this content or this token, and is well
		f.back(e)
	case e.failures > 0: // the trial was ended by somebody else: the next one tries
		e.aside = now
	}
}

// back ends an outage: e has answered. The caller holds f.mu.
func (f *fleet) back(e *element) {
	if e.failures > 0 {
		f.Logger.Info("storage element is back", "url", e.base, "failures", e.failures)
	}
	e.failures, e.aside = 0, time.Time{}
}

// all returns the elements in the order in which uploads try them.
func (f *fleet) all(ctx context.Context) ([]*element, error) {
	if err := f.look(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Clone(f.elements)
	now := time.Now()
	slices.SortFunc(all, func(a, b *element) int { return a.compare(b, 0, now) })
	return all, nil
}

// public is what callers of the package are told of elements. A list that is
// renewed meanwhile writes priorities.
func (f *fleet) public(all []*element) []Element {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Element, 0, len(all))
	for _, e := range all {
		out = append(out, Element{URL: e.base, Priority: e.priority})
	}
	return out
}
