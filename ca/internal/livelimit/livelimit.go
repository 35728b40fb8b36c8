// Package livelimit remembers how many live certificates services and lineages had when the
// record was asked last, so that not each request asks it again.
//
//	n, ok := counts.Next(service, now)
//	if !ok {
//		counts.Set(service, now, counted)
//	}
//
// Invariants:
//
//   - A lineage that the record has refused is refused without a query for a second, and
//     the log tells of it once an hour (TestFullLineageIsTold in ca).
//   - The number of lineages that are remembered is bounded.
package livelimit

import (
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/lru"
)

const (
	// fullPause is how long a full lineage is refused without a query, so that a client
	// in a loop does not cost a signature and a transaction each time.
	fullPause = time.Second
	// fullTold is the shortest time between two lines of the log about one lineage.
	fullTold = time.Hour
	// maxLineages bounds the memory. A lineage that is forgotten costs a query and a
	// line of the log more.
	maxLineages = 10_000
)

// Full are the lineages, by serial, that had as many live certificates as allowed
// at their last request.
type Full struct {
	mu sync.Mutex
	by lru.Cache[string, *fullLineage]
}

type fullLineage struct {
	refused time.Time // when the record has refused it last
	told    time.Time // when a line of the log has said so last
}

// Pauses reports whether the record has refused the lineage within fullPause.
func (f *Full) Pauses(lineage string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.Get(lineage)
	return ok && now.Sub(l.refused) < fullPause && !now.Before(l.refused)
}

// Refused remembers that the record has refused the lineage, and reports whether the log
// should say so now.
func (f *Full) Refused(lineage string, now time.Time) (tell bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.Get(lineage)
	if !ok {
		l = &fullLineage{}
		f.by.Add(lineage, l, maxLineages)
	}
	l.refused = now
	if tell = now.Sub(l.told) >= fullTold; tell {
		l.told = now
	}
	return tell
}

// Recount is how long a count is used.
const Recount = 10 * time.Second

// Counts remembers how many live certificates services with large limits had, so that
// not each commit counts thousands of rows. The keys are the services of pki.yaml.
type Counts struct {
	mu sync.Mutex
	by map[string]count
}

type count struct {
	at time.Time
	n  int // live ones at that time, and those that this process has issued since
}

// Next adds one to the count of a service and returns it. ok is false if there is no
// count, or if it is older than [Recount].
func (l *Counts) Next(service string, now time.Time) (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.by[service]
	if !ok || now.Sub(c.at) >= Recount || now.Before(c.at) {
		return 0, false
	}
	c.n++
	l.by[service] = c
	return c.n, true
}

// Set remembers how many live certificates a service had at a moment.
func (l *Counts) Set(service string, at time.Time, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[string]count)
	}
	l.by[service] = count{at, n}
}

// Forget drops all counts.
func (l *Counts) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by = nil
}
