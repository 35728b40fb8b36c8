package ca

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/lru"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
)

// A lineage is a first certificate with its renewals and the certificates for which it
// signed tokens. A thief of one key can get more certificates, so two limits hold until
// somebody revokes the lineage: how many of its certificates are valid at a time, and
// when the proof ends by which the first one was issued.
// docs/design/0019-bounded-lineages.md

const (
	// fullPause is how long a full lineage is refused without a query, so that a client
	// in a loop does not cost a signature and a transaction each time.
	fullPause = time.Second
	// fullTold is the shortest time between two lines of the log about one lineage.
	fullTold = time.Hour
	// maxFullLineages bounds the memory. A lineage that is forgotten costs a query and a
	// line of the log more.
	maxFullLineages = 10_000
)

// fullLineages are the lineages, by serial, that had as many live certificates as allowed
// at their last request.
type fullLineages struct {
	mu sync.Mutex
	by lru.Cache[string, *fullLineage]
}

type fullLineage struct {
	refused time.Time // when the record has refused it last
	told    time.Time // when a line of the log has said so last
}

// pauses reports whether the record has refused the lineage within fullPause.
func (f *fullLineages) pauses(lineage string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.Get(lineage)
	return ok && now.Sub(l.refused) < fullPause && !now.Before(l.refused)
}

// refused remembers that the record has refused the lineage, and reports whether the log
// should say so now.
func (f *fullLineages) refused(lineage string, now time.Time) (tell bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.Get(lineage)
	if !ok {
		l = &fullLineage{}
		f.by.Add(lineage, l, maxFullLineages)
	}
	l.refused = now
	if tell = now.Sub(l.told) >= fullTold; tell {
		l.told = now
	}
	return tell
}

// lineageFull returns the denial of one more certificate of a lineage, and logs it once in
// a while. The certificates of the lineage stay valid until they expire.
func (a *Authority) lineageFull(ctx context.Context, v verifiedRequest, most int) error {
	lineage := certs.HexSerial(v.previous.Lineage)
	if a.full.refused(v.previous.Lineage, time.Now()) {
		a.logger.ErrorContext(ctx, "a lineage has as many live certificates as it may: something renews in a loop, or the key was stolen",
			"service", v.caller.service, "lineage", lineage, "live", most)
	}
	return refuseLineage(v, most)
}

func refuseLineage(v verifiedRequest, most int) error {
	return denial.New(denial.LiveOfLineage, "lineage %s has %d or more live certificates (profiles.%s.max_live_per_lineage): wait until one expires, or enrol anew",
		certs.HexSerial(v.previous.Lineage), most, v.caller.service)
}

// proofEndFor returns when the proof ends by which a certificate is issued. For a first
// certificate the function that has authenticated it knows the end. A renewal inherits
// it, because it proves nothing but the possession of the key.
func (a *Authority) proofEndFor(ctx context.Context, p *policy.Service, v verifiedRequest) (validity.Proof, error) {
	if v.action == actSign {
		return v.proof, nil
	}
	out := validity.Proof{End: v.previous.ProofUntil, What: "the certificate that vouched for this lineage", Remedy: "sign a token with a newer one"}
	switch v.provisioner.Type {
	case provisioner.TypeACME:
		out.What, out.Remedy = "the proof of the names", "prove the names again, with an order"
		if out.End.IsZero() { // an older version has issued it, and kept no end
			first, err := a.firstOf(ctx, *v.previous)
			if err != nil {
				return out, err
			}
			out.End = p.NamesUntil(first.IssuedAt, first.NotAfter)
		}
	case provisioner.TypeX5C:
		if out.End.IsZero() { // likewise; the certificate behind the token is not known any more, so the end is that of this one
			out.End = v.previous.NotAfter
		}
	}
	return out, nil
}

// firstOf returns the first certificate of the lineage of entry.
func (a *Authority) firstOf(ctx context.Context, entry record.Certificate) (record.Certificate, error) {
	if entry.Serial == entry.Lineage {
		return entry, nil
	}
	first, err := a.record.Get(ctx, entry.Lineage)
	if err != nil {
		return first, fmt.Errorf("reading the first certificate of a lineage: %w", err)
	}
	return first, nil
}

const (
	// liveExact is the largest limit for which each first certificate counts the live
	// ones, which is a scan of one range of an index.
	liveExact = 1000
	// liveRecount is how long a count for a larger limit is used, see liveLimit.
	liveRecount = 10 * time.Second
)

// liveCounts remembers how many live certificates services with large limits had, so that
// not each commit counts thousands of rows. The keys are the services of pki.yaml.
type liveCounts struct {
	mu sync.Mutex
	by map[string]liveCount
}

type liveCount struct {
	at time.Time
	n  int // live ones at that time, and those that this process has issued since
}

// liveLimit returns the limit that the commit must enforce, or 0 to skip the check: while
// the last count plus the certificates issued here since are below half of the limit.
// Two replicas therefore keep the limit. N replicas can exceed it by (N−2)/2 × limit
// until the next count, which is at most liveRecount away.
func (a *Authority) liveLimit(ctx context.Context, p *policy.Service, now time.Time) (int, error) {
	if p.MaxLive <= liveExact {
		return p.MaxLive, nil
	}
	if n, ok := a.live.next(p.Name, now); ok && n < p.MaxLive/2 {
		return 0, nil
	}
	n, err := a.record.Live(ctx, p.Name, now, p.MaxLive)
	if err != nil {
		return 0, err
	}
	a.live.set(p.Name, liveCount{now, n})
	if n < p.MaxLive/2 {
		return 0, nil
	}
	return p.MaxLive, nil
}

// next adds one to the count of a service and returns it. ok is false if there is no
// count, or if it is older than liveRecount.
func (l *liveCounts) next(service string, now time.Time) (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.by[service]
	if !ok || now.Sub(c.at) >= liveRecount || now.Before(c.at) {
		return 0, false
	}
	c.n++
	l.by[service] = c
	return c.n, true
}

func (l *liveCounts) set(service string, c liveCount) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[string]liveCount)
	}
	l.by[service] = c
}
