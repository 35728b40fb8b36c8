package ca

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// A lineage is a first certificate with all that came of it: renewals, and what it
// vouched for. Whoever has the key of one can make more, so two things bound a
// lineage until somebody revokes it: how many of its certificates are valid at a
// time, and when the proof ends that the first of them rests on.

const (
	// defaultMaxLineage is met by a loop or a thief only. A service that renews at two
	// thirds of the life has two live certificates; instances that share a copy of one
	// certificate, and renew it each for itself, have 1.6 each.
	defaultMaxLineage = 50
	// mostMaxLineage bounds what each renewal counts, and what a revocation of the
	// lineage writes in one transaction.
	mostMaxLineage = 1000

	// A lineage that is full is refused without a look into the record for a moment:
	// a loop must not cost a signature and a transaction with each round.
	fullPause = time.Second
	// It is told to the log again after this time.
	fullTold = time.Hour
	// maxFullLineages bounds the memory; those beyond it are forgotten, and told again.
	maxFullLineages = 10_000
)

func (p Profile) parseMaxLineage(at string, bad *problems) int {
	if p.MaxLivePerLineage < 0 || p.MaxLivePerLineage > mostMaxLineage {
		bad.add("%s.max_live_per_lineage: %d is not between 1 and %d", at, p.MaxLivePerLineage, mostMaxLineage)
	}
	if p.MaxLivePerLineage == 0 {
		return defaultMaxLineage
	}
	return p.MaxLivePerLineage
}

// fullLineages are those that had as many live certificates as they may when they
// asked last, by their serials.
type fullLineages struct {
	mu sync.Mutex
	by recent[string, *fullLineage]
}

type fullLineage struct {
	refused time.Time // by the record
	told    time.Time // to the log of the authority
}

// pauses reports whether the record refused the lineage a moment ago.
func (f *fullLineages) pauses(lineage string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.get(lineage)
	return ok && now.Sub(l.refused) < fullPause && !now.Before(l.refused)
}

// refused notes what the record said, and reports whether somebody should be told.
func (f *fullLineages) refused(lineage string, now time.Time) (tell bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.by.get(lineage)
	if !ok {
		l = &fullLineage{}
		f.by.add(lineage, l, maxFullLineages)
	}
	l.refused = now
	if tell = now.Sub(l.told) >= fullTold; tell {
		l.told = now
	}
	return tell
}

// lineageFull is the refusal of one more certificate of a lineage. Nothing is taken
// away: those that it has work until they expire.
func (a *Authority) lineageFull(ctx context.Context, v verified, most int) error {
	lineage := pemfile.HexSerial(v.previous.Lineage)
	if a.full.refused(v.previous.Lineage, time.Now()) {
		a.logger.ErrorContext(ctx, "a lineage has as many live certificates as it may: something renews in a loop, or the key was stolen",
			"service", v.caller.service, "lineage", lineage, "live", most)
	}
	return refuseLineage(v, most)
}

func refuseLineage(v verified, most int) error {
	return refuse(ruleLineage, "lineage %s has %d or more live certificates (profiles.%s.max_live_per_lineage): wait until one expires, or enrol anew",
		pemfile.HexSerial(v.previous.Lineage), most, v.caller.service)
}

// proofOf is the end of the proof that a certificate will rest on. Who authenticated
// a first certificate knows it; a renewal inherits it, for it proves the key and
// nothing else.
func (a *Authority) proofOf(ctx context.Context, p *profile, v verified) (proofEnd, error) {
	if v.action == actSign {
		return v.proof, nil
	}
	out := proofEnd{until: v.previous.ProofUntil, what: "the certificate that vouched for this lineage", again: "sign a token with a newer one"}
	switch v.provisioner.Type {
	case provisioner.TypeACME:
		out.what, out.again = "the proof of the names", "prove the names again, with an order"
		if out.until.IsZero() { // issued before the ends of proofs were kept
			first, err := a.firstOf(ctx, *v.previous)
			if err != nil {
				return out, err
			}
			out.until = p.namesUntil(first.IssuedAt, first.NotAfter)
		}
	case provisioner.TypeX5C:
		if out.until.IsZero() { // likewise; what vouched for it is not known any more, so it gets no more than it has
			out.until = v.previous.NotAfter
		}
	}
	return out, nil
}

func (a *Authority) firstOf(ctx context.Context, entry store.Certificate) (store.Certificate, error) {
	if entry.Serial == entry.Lineage {
		return entry, nil
	}
	first, err := a.record.Get(ctx, entry.Lineage)
	if err != nil {
		return first, fmt.Errorf("reading the first certificate of a lineage: %w", err)
	}
	return first, nil
}

// namesUntil is how long names count as proven that were proven at a moment, for a
// certificate until end. A name can move to another machine; lifetime.max says how
// long that may go unseen.
func (p *profile) namesUntil(proven, end time.Time) time.Time {
	if until := proven.Add(p.life.Max).Truncate(time.Second); until.After(end) {
		return until
	}
	return end
}

// lineages warns of those that are full: they do not renew. Before an upgrade from a
// version without a cap this is the time to see them.
func (d *doctor) lineages(ctx context.Context, cfg Config) {
	r, err := cfg.parse()
	if err != nil {
		return // it was said
	}
	least := defaultMaxLineage
	for _, p := range r.profiles {
		least = min(least, p.maxLineage)
	}
	list, err := store.Crowded(ctx, statedir.Database(d.opt.Dir, cfg.Database), least, time.Now())
	if err != nil {
		d.say("record", DiagnosisError, "%v", err)
	}
	for _, l := range list {
		if p := r.profiles[l.Service]; p != nil && l.Live >= p.maxLineage {
			d.say("record", DiagnosisWarning, "lineage %s of service %s has %d live certificates, and may have %d (profiles.%s.max_live_per_lineage): it does not renew; was its key copied?",
				pemfile.HexSerial(l.Lineage), l.Service, l.Live, p.maxLineage, l.Service)
		}
	}
}
