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

// A lineage is a first certificate with all that came of it: renewals, and what it
// vouched for. Whoever has the key of one can make more, so two things bound a
// lineage until somebody revokes it: how many of its certificates are valid at a
// time, and when the proof ends that the first of them rests on.

const (
	// A lineage that is full is refused without a look into the record for a moment:
	// a loop must not cost a signature and a transaction with each round.
	fullPause = time.Second
	// It is told to the log again after this time.
	fullTold = time.Hour
	// maxFullLineages bounds the memory; those beyond it are forgotten, and told again.
	maxFullLineages = 10_000
)

// fullLineages are those that had as many live certificates as they may when they
// asked last, by their serials.
type fullLineages struct {
	mu sync.Mutex
	by lru.Cache[string, *fullLineage]
}

type fullLineage struct {
	refused time.Time // by the record
	told    time.Time // to the log of the authority
}

// pauses reports whether the record refused the lineage a moment ago.
func (f *fullLineages) pauses(lineage string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.Get(lineage)
	return ok && now.Sub(l.refused) < fullPause && !now.Before(l.refused)
}

// refused notes what the record said, and reports whether somebody should be told.
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

// lineageFull is the refusal of one more certificate of a lineage. Nothing is taken
// away: those that it has work until they expire.
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

// proofEndFor is the end of the proof that a certificate will rest on. Who authenticated
// a first certificate knows it; a renewal inherits it, for it proves the key and
// nothing else.
func (a *Authority) proofEndFor(ctx context.Context, p *policy.Service, v verifiedRequest) (validity.Proof, error) {
	if v.action == actSign {
		return v.proof, nil
	}
	out := validity.Proof{End: v.previous.ProofUntil, What: "the certificate that vouched for this lineage", Remedy: "sign a token with a newer one"}
	switch v.provisioner.Type {
	case provisioner.TypeACME:
		out.What, out.Remedy = "the proof of the names", "prove the names again, with an order"
		if out.End.IsZero() { // issued before the ends of proofs were kept
			first, err := a.firstOf(ctx, *v.previous)
			if err != nil {
				return out, err
			}
			out.End = p.NamesUntil(first.IssuedAt, first.NotAfter)
		}
	case provisioner.TypeX5C:
		if out.End.IsZero() { // likewise; what vouched for it is not known any more, so it gets no more than it has
			out.End = v.previous.NotAfter
		}
	}
	return out, nil
}

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
	// A cap up to liveExact is counted with each first certificate: that is one
	// range of an index. A larger one is counted now and then while it is far.
	liveExact   = 1000
	liveRecount = 10 * time.Second
)

// liveCounts remember how many certificates large services had, so that not each
// commit counts thousands of rows. Its keys are the services of pki.yaml.
type liveCounts struct {
	mu sync.Mutex
	by map[string]liveCount
}

type liveCount struct {
	at time.Time
	n  int // counted then, and issued here since
}

// liveLimit returns the limit that the commit must enforce, or 0 to skip the check:
// while the last count and what was issued here since are below half of the limit.
// Two replicas therefore keep the limit. N can exceed it by (N−2)/2 × limit until the
// next count, which is at most liveRecount away.
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

// next counts one more and returns the sum, if there is a count that is young enough.
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
