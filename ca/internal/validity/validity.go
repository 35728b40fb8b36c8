// Package validity decides from when until when a certificate is valid.
//
// A request may name the begin and the end of its certificate. It gets exactly these
// dates, or an error that names the rule which forbids them. RFC 8555 §7.4 demands this
// of ACME; the other routes keep it too. Only what the request leaves open is chosen
// here, and only that may be cut to the end of the issuer.
//
// Invariants:
//   - What was asked for is issued, or a rule is named (TestValidityOfAnyDates).
//   - No certificate reaches beyond its issuer or its proof (TestValidityOfAnyDates).
package validity

import (
	"crypto/x509"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	// dateSkew is how far ahead a begin may lie, and how far a life may exceed the
	// most: clients compute dates with a clock of their own.
	dateSkew = time.Minute
	// earliestBegin is how far back a request may date its certificate. A peer whose
	// clock is slow needs it; what lies further back would claim a past that the
	// record contradicts.
	earliestBegin = time.Hour
)

// Dates are the begin and the end of a certificate, as asked for or as issued. In a
// request the zero time leaves one of them open.
type Dates struct{ NotBefore, NotAfter time.Time }

// Asked reads the dates of POST /sign: RFC 3339 or durations. The begin counts
// from now and the end from the begin, as step-ca reads them.
func Asked(req stepapi.SignRequest, now time.Time) (d Dates, err error) {
	if d.NotBefore, err = AskedTime("notBefore", req.NotBefore, now); err != nil {
		return d, err
	}
	base := now
	if !d.NotBefore.IsZero() {
		base = d.NotBefore
	}
	d.NotAfter, err = AskedTime("notAfter", req.NotAfter, base)
	return d, err
}

// AskedTime reads one date of a request: RFC 3339, or a duration from base. It returns
// the zero time for an empty text; an error is a [denial.RequestError] that names key.
func AskedTime(key, text string, base time.Time) (time.Time, error) {
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

// Bounds are what limits a certificate beside its profile.
type Bounds struct {
	Now     time.Time
	Issuing *x509.Certificate // that will sign it
	Proof   Proof
}

// Proof is the end of the proof that a certificate rests on. The zero value is
// that of a proof without an end.
type Proof struct {
	End    time.Time
	What   string // the proof, for the refusal
	Remedy string // what to do when it has ended
}

// Decide decides the dates of a certificate: those asked for, where the profile,
// the issuer and the proof allow them, and the profile's default otherwise. X.509
// has no fractions of a second (RFC 5280 §4.1.2.5), so they are cut off.
func Decide(p *policy.Service, asked Dates, b Bounds) (Dates, error) {
	out := Dates{asked.NotBefore.Truncate(time.Second), asked.NotAfter.Truncate(time.Second)}
	begin := b.Now
	if !asked.NotBefore.IsZero() {
		if err := b.allowBegin(asked.NotBefore); err != nil {
			return Dates{}, err
		}
		begin = asked.NotBefore
	}
	if asked.NotAfter.IsZero() {
		want := begin.Add(p.Lifetimes.Default).Truncate(time.Second)
		out.NotAfter = earliestOf(want, b.Issuing.NotAfter, b.Proof.End)
		if err := b.allowRest(want, out.NotAfter); err != nil {
			return Dates{}, err
		}
	} else if err := b.allowEnd(p, begin, asked.NotAfter); err != nil {
		return Dates{}, err
	}
	if asked.NotBefore.IsZero() {
		start := begin.Truncate(time.Second) // down, so that nothing begins in the future
		out.NotBefore = start.Add(-lifetime.Backdate(out.NotAfter.Sub(start)))
		if out.NotBefore.Before(b.Issuing.NotBefore) {
			out.NotBefore = b.Issuing.NotBefore
		}
	}
	return out, nil
}

// allowBegin refuses a begin further back than earliestBegin, further ahead than dateSkew, or
// before the begin of the issuing certificate.
func (b Bounds) allowBegin(at time.Time) error {
	switch {
	case at.After(b.Now.Add(dateSkew)):
		return denial.New(denial.Lifetime, "notBefore %s is more than %s ahead: a certificate begins when it is issued", Stamp(at), dateSkew)
	case at.Before(b.Now.Add(-earliestBegin)):
		return denial.New(denial.Lifetime, "notBefore %s is more than %s ago", Stamp(at), earliestBegin)
	case at.Before(b.Issuing.NotBefore):
		return denial.New(denial.Issuer, "notBefore %s is before %s, when the issuing certificate begins", Stamp(at), Stamp(b.Issuing.NotBefore))
	}
	return nil
}

// allowEnd refuses an end that profile, issuer or proof do not allow.
func (b Bounds) allowEnd(p *policy.Service, begin, end time.Time) error {
	life, rest := end.Sub(begin), end.Sub(b.Now)
	least := min(life, rest)
	switch {
	case rest <= 0:
		return denial.New(denial.Lifetime, "notAfter %s is in the past", Stamp(end))
	case least < p.Lifetimes.Min:
		return denial.New(denial.Lifetime, "notAfter: %s is shorter than %s (profiles.%s.lifetime.min)", least.Round(time.Second), p.Lifetimes.Min, p.Name)
	case life > p.Lifetimes.Max+dateSkew:
		return denial.New(denial.Lifetime, "notAfter: %s is longer than %s (profiles.%s.lifetime.max)", life.Round(time.Second), p.Lifetimes.Max, p.Name)
	case end.After(b.Issuing.NotAfter):
		return denial.New(denial.Issuer, "notAfter %s is after %s, when the issuing certificate ends", Stamp(end), Stamp(b.Issuing.NotAfter))
	case !b.Proof.End.IsZero() && end.After(b.Proof.End):
		return denial.New(denial.Proof, "notAfter %s is after the end of %s at %s", Stamp(end), b.Proof.What, Stamp(b.Proof.End))
	}
	return nil
}

// allowRest refuses an end that leaves too little of the certificate to be of use.
func (b Bounds) allowRest(want, end time.Time) error {
	least := policy.MinLifetime
	if end.Equal(want) && !end.Equal(b.Proof.End) {
		least -= time.Second // cut off because X.509 has whole seconds
	}
	switch {
	case end.Sub(b.Now) >= least:
		return nil
	case end.Equal(b.Issuing.NotAfter):
		return denial.New(denial.Issuer, "the issuing certificate ends at %s", Stamp(end))
	case end.Equal(b.Proof.End):
		return denial.New(denial.Proof, "%s ends at %s: %s", b.Proof.What, Stamp(end), b.Proof.Remedy)
	}
	return denial.New(denial.Lifetime, "the certificate would end at %s: ask for an end, or for a later begin", Stamp(end))
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

// Stamp returns a moment in the form of texts for people.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
