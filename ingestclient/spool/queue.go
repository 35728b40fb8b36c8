package spool

import (
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

// largeFrom is the size in bytes from which a file is large. Half of the workers at
// most send large files, so that small ones never wait for them.
const largeFrom = 64 << 20

// item is a claimed file.
type item struct {
	id     string // of the claim, and the file id that the element is offered
	name   string
	seen   fileat.ID
	open   bool     // an upload under this id may have stored it already
	proven []string // the elements that may have it, if each was known to keep our ids
	reach  []string // the elements that may have it, as far as that is known
	tries  int
	others int64 // how many files were stored when it failed first

	stored      *journal.Record // its verified receipt, still to be recorded, or its source to be disposed of
	logged      bool            // the receipt is in the journal
	noEvent     bool            // it was stored before: there is no event
	quarantined *reason         // why it must be quarantined
}

func (it *item) large() bool { return it.seen.Size >= largeFrom }

// queue is the queue of claims. It is used by one goroutine.
type queue struct {
	workers         int
	small, large    []*item // in the order of their turn
	busy, largeBusy int     // uploads under way, and those of large files of them
}

// hasRoom reports whether another file may be claimed: the queue is long enough that
// no worker waits, and short enough that other files stay in their directory.
func (l *queue) hasRoom(large bool) bool {
	if large {
		return len(l.large) < l.workers
	}
	return len(l.small) < 2*l.workers
}

func (l *queue) size() int { return len(l.small) + len(l.large) }

func (l *queue) push(it *item) {
	if it.large() {
		l.large = append(l.large, it)
		return
	}
	l.small = append(l.small, it)
}

// pop takes the next item if a worker is free for it: the one with fewer failed
// attempts, or else the older one, of the first small and the first large item.
// Otherwise the same failing file would be every trial.
func (l *queue) pop() *item {
	if l.busy >= l.workers {
		return nil
	}
	from := &l.small
	heavyFree := l.largeBusy < max(1, l.workers/2)
	if len(l.large) > 0 && heavyFree && (len(l.small) == 0 || goesFirst(l.large[0], l.small[0])) {
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

func goesFirst(a, b *item) bool {
	if a.tries != b.tries {
		return a.tries < b.tries
	}
	return a.seen.MTime < b.seen.MTime
}

func (l *queue) begin(it *item) {
	l.busy++
	if it.large() {
		l.largeBusy++
	}
}

func (l *queue) end(it *item) {
	l.busy--
	if it.large() {
		l.largeBusy--
	}
}

// takeAll empties the queue and returns its items.
func (l *queue) takeAll() []*item {
	out := append(l.small, l.large...)
	l.small, l.large = nil, nil
	return out
}

// oldest returns the age of the oldest file in the queue, by modification time.
func (l *queue) oldest(now time.Time) time.Duration {
	var age time.Duration
	for _, q := range [][]*item{l.small, l.large} {
		for _, it := range q {
			age = max(age, now.Sub(time.Unix(0, it.seen.MTime)))
		}
	}
	return age
}
