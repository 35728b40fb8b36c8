package ca

import (
	"crypto/x509"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A request may name the begin and the end of its certificate. It gets exactly
// these dates, or an error that names the rule which forbids them. RFC 8555 §7.4
// demands this of ACME; the other routes keep it too. Only what the request leaves
// open is chosen here, and only that may be cut to the end of the issuer.

const (
	// dateSkew is how far ahead a begin may lie, and how far a life may exceed the
	// most: clients compute dates with a clock of their own.
	dateSkew = time.Minute
	// earliestBegin is how far back a request may date its certificate. A peer whose
	// clock is slow needs it; what lies further back would claim a past that the
	// record contradicts.
	earliestBegin = time.Hour
)

// dates are the begin and the end of a certificate, as asked for or as issued. In a
// request the zero time leaves one of them open.
type dates struct{ notBefore, notAfter time.Time }

// askedDates reads the dates of POST /sign: RFC 3339 or durations. The begin counts
// from now and the end from the begin, as step-ca reads them.
func askedDates(req stepapi.SignRequest, now time.Time) (d dates, err error) {
	if d.notBefore, err = askedTime("notBefore", req.NotBefore, now); err != nil {
		return d, err
	}
	base := now
	if !d.notBefore.IsZero() {
		base = d.notBefore
	}
	d.notAfter, err = askedTime("notAfter", req.NotAfter, base)
	return d, err
}

// askedTime returns the zero time for an empty text.
func askedTime(key, text string, base time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return base.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, denial.BadRequest("%s: neither a time (RFC 3339) nor a duration", key)
	}
	return t, nil
}

// bounds are what limits a certificate beside its profile.
type bounds struct {
	now     time.Time
	issuing *x509.Certificate
	proof   proofEnd
}

// proofEnd is the end of the proof that a certificate rests on. The zero value is
// that of a proof without an end.
type proofEnd struct {
	notAfterCap time.Time
	what        string // the proof, for the refusal
	remedy      string // what to do when it has ended
}

// validityOf decides the dates of a certificate: those asked for, where the profile,
// the issuer and the proof allow them, and the profile's default otherwise. X.509
// has no fractions of a second (RFC 5280 §4.1.2.5), so they are cut off.
func validityOf(p *policy.Service, asked dates, b bounds) (dates, error) {
	out := dates{asked.notBefore.Truncate(time.Second), asked.notAfter.Truncate(time.Second)}
	begin := b.now
	if !asked.notBefore.IsZero() {
		if err := b.allowBegin(asked.notBefore); err != nil {
			return dates{}, err
		}
		begin = asked.notBefore
	}
	if asked.notAfter.IsZero() {
		want := begin.Add(p.Lifetimes.Default).Truncate(time.Second)
		out.notAfter = earliestOf(want, b.issuing.NotAfter, b.proof.notAfterCap)
		if err := b.allowRest(want, out.notAfter); err != nil {
			return dates{}, err
		}
	} else if err := b.allowEnd(p, begin, asked.notAfter); err != nil {
		return dates{}, err
	}
	if asked.notBefore.IsZero() {
		start := begin.Truncate(time.Second) // down, so that nothing begins in the future
		out.notBefore = start.Add(-lifetime.Backdate(out.notAfter.Sub(start)))
		if out.notBefore.Before(b.issuing.NotBefore) {
			out.notBefore = b.issuing.NotBefore
		}
	}
	return out, nil
}

// allowBegin refuses a begin that is not about now.
func (b bounds) allowBegin(at time.Time) error {
	switch {
	case at.After(b.now.Add(dateSkew)):
		return denial.New(denial.Lifetime, "notBefore %s is more than %s ahead: a certificate begins when it is issued", stamp(at), dateSkew)
	case at.Before(b.now.Add(-earliestBegin)):
		return denial.New(denial.Lifetime, "notBefore %s is more than %s ago", stamp(at), earliestBegin)
	case at.Before(b.issuing.NotBefore):
		return denial.New(denial.Issuer, "notBefore %s is before %s, when the issuing certificate begins", stamp(at), stamp(b.issuing.NotBefore))
	}
	return nil
}

// allowEnd refuses an end that was asked for and cannot be had.
func (b bounds) allowEnd(p *policy.Service, begin, end time.Time) error {
	life, rest := end.Sub(begin), end.Sub(b.now)
	least := min(life, rest)
	switch {
	case rest <= 0:
		return denial.New(denial.Lifetime, "notAfter %s is in the past", stamp(end))
	case least < p.Lifetimes.Min:
		return denial.New(denial.Lifetime, "notAfter: %s is shorter than %s (profiles.%s.lifetime.min)", least.Round(time.Second), p.Lifetimes.Min, p.Name)
	case life > p.Lifetimes.Max+dateSkew:
		return denial.New(denial.Lifetime, "notAfter: %s is longer than %s (profiles.%s.lifetime.max)", life.Round(time.Second), p.Lifetimes.Max, p.Name)
	case end.After(b.issuing.NotAfter):
		return denial.New(denial.Issuer, "notAfter %s is after %s, when the issuing certificate ends", stamp(end), stamp(b.issuing.NotAfter))
	case !b.proof.notAfterCap.IsZero() && end.After(b.proof.notAfterCap):
		return denial.New(denial.Proof, "notAfter %s is after the end of %s at %s", stamp(end), b.proof.what, stamp(b.proof.notAfterCap))
	}
	return nil
}

// allowRest refuses an end that leaves too little of the certificate to be of use.
func (b bounds) allowRest(want, end time.Time) error {
	least := policy.MinLifetime
	if end.Equal(want) && !end.Equal(b.proof.notAfterCap) {
		least -= time.Second // cut off because X.509 has whole seconds
	}
	switch {
	case end.Sub(b.now) >= least:
		return nil
	case end.Equal(b.issuing.NotAfter):
		return denial.New(denial.Issuer, "the issuing certificate ends at %s", stamp(end))
	case end.Equal(b.proof.notAfterCap):
		return denial.New(denial.Proof, "%s ends at %s: %s", b.proof.what, stamp(end), b.proof.remedy)
	}
	return denial.New(denial.Lifetime, "the certificate would end at %s: ask for an end, or for a later begin", stamp(end))
}

// earliestOf leaves out times that are zero.
func earliestOf(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// stamp is how a moment stands in a text for people.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
