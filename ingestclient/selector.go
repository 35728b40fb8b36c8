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

	"github.com/artstore/artstore-pki/internal/backoff"
)

const (
	// The pause for an element that is down doubles with each failure.
	downMin, downMax = time.Second, time.Minute
	// While one upload finds out whether an element is back, others avoid the element
	// for this time. A dial or a handshake that hangs has failed by then.
	trialFor = 30 * time.Second
	// An element that was full or in another mode is tried again after this time: an
	// operator may have made room or changed the mode.
	refusedFor = time.Minute
)

// errNoCandidate reports that each element was tried already, or cannot take the content.
var errNoCandidate = errors.New("no storage element is left")

// element is a Storage Element and what is known of it, guarded by
// elementSelector.mu; its address never changes and is read without the lock.
type element struct {
	elementInfo
	since         time.Time // the last failure in a row, if failures is above 0
	failures      int
	excludedUntil time.Time // not used before then, if there is another element
	noContinue    bool      // it works, but sends no 100 Continue
	full          int64     // content of this size or more was refused; valid until fullUntil
	fullUntil     time.Time
}

// elementInfo is an element as the configuration or a registry describes it.
type elementInfo struct {
	base     string // URL, without a slash at its end
	priority int    // the lowest goes first
	mode     string // edit, rw, ro, ar; "" if not known
	free     int64  // bytes; -1 if not known
}

func (e *element) files(rest string) string { return e.base + "/api/v1/files" + rest }

func (e *element) file(id string) string { return e.files("/" + url.PathEscape(id)) }

// elementSelector chooses the Storage Element for each upload: the lowest priority,
// and the most free space among equal ones. An element that was found to be down,
// full or in a mode without uploads is chosen only if there is no other.
type elementSelector struct {
	*settings
	tokens *tokenManager

	mu       sync.Mutex // never held across I/O
	elements []*element
	listed   time.Time // when the list was last read
	listing  *tokenFetch
	fail     failure // of the last listing
}

func newElementSelector(s *settings, k *tokenManager) *elementSelector {
	sel := &elementSelector{settings: s, tokens: k}
	for _, l := range s.storage {
		sel.elements = append(sel.elements, &element{elementInfo: l})
	}
	return sel
}

// requirements are what an upload needs of an element.
type requirements struct {
	size      int64
	retention string
	asked     map[*element]bool // tried already
}

// pick returns the element to try next. The error is errNoCandidate or [ErrMode] if there is
// none, and [ErrRegistry] if there is no list of elements.
func (sel *elementSelector) pick(ctx context.Context, n requirements) (*element, error) {
	if err := sel.ensureList(ctx); err != nil {
		return nil, err
	}
	sel.mu.Lock()
	defer sel.mu.Unlock()
	now := time.Now()
	var best *element
	unfit := 0
	for _, e := range sel.elements {
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
		return nil, errNoCandidate
	}
	// Other uploads avoid the element while this one finds out whether it is back.
	if best.failures > 0 && !now.Before(best.excludedUntil) {
		best.excludedUntil = now.Add(trialFor)
	}
	return best, nil
}

// hasAlternative reports whether there is an element other than at that is not in
// asked and fits retention.
func (sel *elementSelector) hasAlternative(asked map[*element]bool, at *element, retention string) bool {
	sel.mu.Lock()
	defer sel.mu.Unlock()
	return slices.ContainsFunc(sel.elements, func(e *element) bool { return e != at && !asked[e] && e.fits(retention) })
}

// sendsContinue reports whether e can be expected to send 100 Continue (RFC 9110
// §10.1.1).
func (sel *elementSelector) sendsContinue(e *element) bool {
	sel.mu.Lock()
	defer sel.mu.Unlock()
	return !e.noContinue
}

func (sel *elementSelector) setNoContinue(e *element) {
	sel.mu.Lock()
	defer sel.mu.Unlock()
	e.noContinue = true
	sel.Logger.Info("storage element sends no 100 Continue", "url", e.base)
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

// compare orders elements for content of the given size: first by availableAt, then
// by priority, then by free space.
func (e *element) compare(o *element, size int64, now time.Time) int {
	if c := e.availableAt(size, now).Compare(o.availableAt(size, now)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(e.priority, o.priority), -cmp.Compare(e.free, o.free), strings.Compare(e.base, o.base))
}

// availableAt returns the time from which e should be tried, zero for at once.
func (e *element) availableAt(size int64, now time.Time) time.Time {
	var at time.Time
	if now.Before(e.excludedUntil) {
		at = e.excludedUntil
	}
	if size >= e.full && now.Before(e.fullUntil) && e.fullUntil.After(at) {
		at = e.fullUntil
	}
	if e.free >= 0 && e.free < size && at.IsZero() {
		at = now // the element said that it has too little space, which may have changed since
	}
	return at
}

// isElementFault reports whether err is a failure of the element, and not of the
// content, the token or the caller.
func isElementFault(err error) bool {
	for _, sentinel := range []error{ErrConnection, ErrTLSPeer, ErrServer, ErrUnavailable, ErrStalled, ErrTooSlow, ErrNoAnswer} {
		if errors.Is(err, sentinel) {
			return !errors.Is(err, ErrTokenEndpoint) && !errors.Is(err, ErrClosed)
		}
	}
	return false
}

// recordOutcome records how an upload of size bytes to e ended, for later choices.
func (sel *elementSelector) recordOutcome(e *element, size int64, err *RequestError) {
	sel.mu.Lock()
	defer sel.mu.Unlock()
	now := time.Now()
	switch {
	case err == nil:
		sel.markHealthy(e)
		if e.free >= 0 {
			e.free = max(0, e.free-size)
		}
	case errors.Is(err, ErrFull), errors.Is(err, ErrTooLarge):
		sel.markHealthy(e)
		e.full, e.fullUntil = size, now.Add(refusedFor)
	case errors.Is(err, ErrMode):
		sel.markHealthy(e)
		e.excludedUntil = now.Add(refusedFor)
	case isElementFault(err):
		// Concurrent uploads that fail together count as one failure.
		if e.failures > 0 && now.Before(e.excludedUntil) && now.Sub(e.since) < downMin {
			return
		}
		e.failures++
		e.since = now
		e.excludedUntil = now.Add(max(backoff.Between(downMin, backoff.Step(downMin, downMax, e.failures), sel.jitter()), min(err.retryAfter, sel.MaxRetryAfter)))
		log := sel.Logger.Debug
		if e.failures == 1 {
			log = sel.Logger.Warn // an outage begins; markHealthy logs its end
		}
		log("storage element fails", "url", e.base, "failures", e.failures, "err", err)
	case err.Status != 0: // it answered: it works, and refuses this content or this token
		sel.markHealthy(e)
	case e.failures > 0: // the upload was cancelled: the next one tries the element
		e.excludedUntil = now
	}
}

// markHealthy ends an outage of e, which has answered. The caller holds sel.mu.
func (sel *elementSelector) markHealthy(e *element) {
	if e.failures > 0 {
		sel.Logger.Info("storage element is back", "url", e.base, "failures", e.failures)
	}
	e.failures, e.excludedUntil = 0, time.Time{}
}

// all returns the elements in the order in which uploads try them.
func (sel *elementSelector) all(ctx context.Context) ([]*element, error) {
	if err := sel.ensureList(ctx); err != nil {
		return nil, err
	}
	sel.mu.Lock()
	defer sel.mu.Unlock()
	all := slices.Clone(sel.elements)
	now := time.Now()
	slices.SortFunc(all, func(a, b *element) int { return a.compare(b, 0, now) })
	return all, nil
}

// public returns elements in the form of the API. It takes the lock because merge
// writes priorities.
func (sel *elementSelector) public(all []*element) []Element {
	sel.mu.Lock()
	defer sel.mu.Unlock()
	out := make([]Element, 0, len(all))
	for _, e := range all {
		out = append(out, Element{URL: e.base, Priority: e.priority})
	}
	return out
}
