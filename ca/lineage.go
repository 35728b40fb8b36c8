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
func (a *Authority) lineageFull(ctx context.Context, v VerifiedRequest, most int) error {
	lineage := certs.HexSerial(v.previous.Lineage)
	if a.full.refused(v.previous.Lineage, time.Now()) {
		a.logger.ErrorContext(ctx, "a lineage has as many live certificates as it may: something renews in a loop, or the key was stolen",
			"service", v.caller.service, "lineage", lineage, "live", most)
	}
	return refuseLineage(v, most)
}

func refuseLineage(v VerifiedRequest, most int) error {
	return denial.New(denial.LiveOfLineage, "lineage %s has %d or more live certificates (profiles.%s.max_live_per_lineage): wait until one expires, or enrol anew",
		certs.HexSerial(v.previous.Lineage), most, v.caller.service)
}

// proofEndFor is the end of the proof that a certificate will rest on. Who authenticated
// a first certificate knows it; a renewal inherits it, for it proves the key and
// nothing else.
func (a *Authority) proofEndFor(ctx context.Context, p *policy.Service, v VerifiedRequest) (validity.Proof, error) {
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
