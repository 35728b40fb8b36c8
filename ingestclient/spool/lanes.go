package spool

import "time"

// largeFrom is the size in bytes from which a file takes the lane of large
// ones: half of the workers, at most. So however many huge files there are,
// small ones keep moving.
const largeFrom = 64 << 20

// item is a claimed file.
type item struct {
	id     string // of the claim, and the file id that the element is offered
	name   string
	seen   identity
	open   bool     // an upload under this id may have stored it already
	proven []string // the elements that may have it, if each was known to keep our ids
	reach  []string // the elements that may have it, as far as that is known
	tries  int
	others int64 // files stored when it failed first: whether only this one fails

	stored *record // its receipt was verified; what is left is our own affair
	logged bool    // and that is in the journal
	silent bool    // it was stored before: nothing to report
	aside  *reason // to be put aside; the same
}

func (it *item) large() bool { return it.seen.Size >= largeFrom }

// lanes is the queue of claims. It is used by one goroutine.
type lanes struct {
	workers      int
	small, large []*item // in the order of their turn
	busy, heavy  int     // uploads under way, and those of large files among them
}

// room says how many more may be claimed: enough that no worker waits, and few
// enough that a file which could wait where it is does.
func (l *lanes) room(large bool) bool {
	if large {
		return len(l.large) < l.workers
	}
	return len(l.small) < 2*l.workers
}

func (l *lanes) len() int { return len(l.small) + len(l.large) }

func (l *lanes) push(it *item) {
	if it.large() {
		l.large = append(l.large, it)
		return
	}
	l.small = append(l.small, it)
}

// pop takes the older of the two that are next, if a worker is free for it. One
// that failed more often goes second, or it would be every probe.
func (l *lanes) pop() *item {
	if l.busy >= l.workers {
		return nil
	}
	from := &l.small
	heavyFree := l.heavy < max(1, l.workers/2)
	if len(l.large) > 0 && heavyFree && (len(l.small) == 0 || before(l.large[0], l.small[0])) {
		from = &l.large
	}
	if len(*from) == 0 {
		return nil
	}
	it := (*from)[0]
	*from = (*from)[1:]
	l.begin(it)
	return it
}

func before(a, b *item) bool {
	if a.tries != b.tries {
		return a.tries < b.tries
	}
	return a.seen.MTime < b.seen.MTime
}

func (l *lanes) begin(it *item) {
	l.busy++
	if it.large() {
		l.heavy++
	}
}

func (l *lanes) end(it *item) {
	l.busy--
	if it.large() {
		l.heavy--
	}
}

// rest empties the queue.
func (l *lanes) rest() []*item {
	out := append(l.small, l.large...)
	l.small, l.large = nil, nil
	return out
}

// oldest is the age of the file that waits longest, by its modification time.
func (l *lanes) oldest(now time.Time) time.Duration {
	var age time.Duration
	for _, q := range [][]*item{l.small, l.large} {
		for _, it := range q {
			age = max(age, now.Sub(time.Unix(0, it.seen.MTime)))
		}
	}
	return age
}
