package validity_test

import (
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
)

// asked are what a request asks for, and what bounds the answer.
type asked struct {
	NotBefore, NotAfter time.Time // zero: left open
	Now, Proof          time.Time // the end of the proof may be zero
	Issuer              *x509.Certificate
}

// decide decides the dates of a certificate of a profile. rule is the one that refuses.
func decide(p policy.Profile, d asked) (notBefore, notAfter time.Time, rule string, err error) {
	r, err := policy.Config{
		Name: "test", Address: "127.0.0.1:0", DNSNames: []string{"ca"},
		Provisioners: []policy.Provisioner{{Type: "X5C", Name: "x5c"}}, Profiles: map[string]policy.Profile{"service": p},
	}.Parse()
	if err != nil {
		return notBefore, notAfter, "", err
	}
	got, err := validity.Decide(r.Services["service"], validity.Dates{NotBefore: d.NotBefore, NotAfter: d.NotAfter}, validity.Bounds{
		Now: d.Now, Issuing: d.Issuer, Proof: validity.Proof{End: d.Proof, What: "the proof", Remedy: "prove again"},
	})
	if denied, ok := errors.AsType[*denial.Error](err); ok {
		rule = string(denied.Rule)
	}
	return got.NotBefore, got.NotAfter, rule, err
}

// spans has a default between its least and its most, so that each of them shows.
func spans() policy.Profile {
	p := policy.Profile{Names: []string{"spans"}}
	p.Lifetime.Min, p.Lifetime.Default, p.Lifetime.Max = 5*time.Minute, time.Hour, 72*time.Hour
	return p
}

// Each date of the answer is the one that was asked for, or the default cut to what
// bounds it, or a rule refuses.
func TestValidity(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 400e6, time.UTC)
	issuer := &x509.Certificate{NotBefore: now.Add(-30 * time.Minute), NotAfter: now.Add(48 * time.Hour)}
	sec := now.Truncate(time.Second)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	var open time.Time
	for name, tc := range map[string]struct {
		d        asked
		from, to time.Time
		rule     string
	}{
		"nothing asked":               {asked{}, sec.Add(-time.Minute), sec.Add(time.Hour), ""},
		"longer than the default":     {asked{NotAfter: in(2 * time.Hour)}, sec.Add(-time.Minute), sec.Add(2 * time.Hour), ""},
		"the least":                   {asked{NotAfter: in(5 * time.Minute)}, sec.Add(-30 * time.Second), sec.Add(5 * time.Minute), ""},
		"less than the least":         {asked{NotAfter: in(5*time.Minute - 1)}, open, open, "lifetime"},
		"more than the most":          {asked{NotAfter: in(72*time.Hour + 2*time.Minute)}, open, open, "lifetime"},
		"beyond the issuer":           {asked{NotAfter: in(60 * time.Hour)}, open, open, "within the issuer's life"},
		"beyond the proof":            {asked{NotAfter: in(2 * time.Hour), Proof: in(time.Hour)}, open, open, "within the proof's life"},
		"until the end of the proof":  {asked{NotAfter: in(time.Hour), Proof: in(time.Hour)}, sec.Add(-time.Minute), sec.Add(time.Hour), ""},
		"the default, cut":            {asked{Proof: sec.Add(20 * time.Minute)}, sec.Add(-time.Minute), sec.Add(20 * time.Minute), ""},
		"the default, cut to nothing": {asked{Proof: sec.Add(10 * time.Second)}, open, open, "within the proof's life"},
		"a begin in the past":         {asked{NotBefore: in(-20 * time.Minute)}, sec.Add(-20 * time.Minute), sec.Add(40 * time.Minute), ""},
		"a begin before the issuer":   {asked{NotBefore: in(-40 * time.Minute)}, open, open, "within the issuer's life"},
		"a begin long ago":            {asked{NotBefore: in(-61 * time.Minute)}, open, open, "lifetime"},
		"a begin a little ahead":      {asked{NotBefore: in(30 * time.Second), NotAfter: in(time.Hour)}, sec.Add(30 * time.Second), sec.Add(time.Hour), ""},
		"a begin ahead":               {asked{NotBefore: in(2 * time.Minute)}, open, open, "lifetime"},
		"an end in the past":          {asked{NotAfter: in(-time.Minute)}, open, open, "lifetime"},
		"an end before the begin":     {asked{NotBefore: in(30 * time.Second), NotAfter: in(20 * time.Second)}, open, open, "lifetime"},
		"little left of a long life":  {asked{NotBefore: in(-20 * time.Minute), NotAfter: in(time.Minute)}, open, open, "lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.d.Now, tc.d.Issuer = now, issuer
			from, to, rule, err := decide(spans(), tc.d)
			if rule != tc.rule || (err == nil) != (tc.rule == "") || !from.Equal(tc.from) || !to.Equal(tc.to) {
				t.Errorf("%s to %s, rule %q, %v", from, to, rule, err)
			}
		})
	}
	brief := &x509.Certificate{NotBefore: in(-time.Hour), NotAfter: in(9 * time.Second)}
	if _, _, rule, err := decide(spans(), asked{Now: now, Issuer: brief}); rule != "within the issuer's life" {
		t.Errorf("an issuer at its end: rule %q, %v", rule, err)
	}
	ten := policy.Profile{Names: []string{"ten"}}
	ten.Lifetime.Min, ten.Lifetime.Default = 10*time.Second, 10*time.Second
	if _, to, _, err := decide(ten, asked{Now: now, Issuer: issuer}); err != nil || !to.Equal(sec.Add(10*time.Second)) {
		t.Errorf("the shortest life: until %s, %v", to, err)
	}
}

// The same for any dates: what was asked is issued, or a rule is named.
func TestValidityOfAnyDates(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 0))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// near is a moment around now, or none at all: close to it as often as far from it.
	near := func() time.Time {
		if rng.IntN(3) == 0 {
			return time.Time{}
		}
		reach := []time.Duration{time.Second, 10 * time.Minute, 2 * time.Hour, 100 * time.Hour, 1 << 62}[rng.IntN(5)]
		return now.Add(time.Duration(rng.Int64N(2*int64(reach-1))) - reach)
	}
	issued, p := 0, spans()
	for range 20_000 {
		d := asked{NotBefore: near(), NotAfter: near(), Proof: near().Truncate(time.Second), Now: now.Add(time.Duration(rng.Int64N(1e9)))}
		d.Issuer = &x509.Certificate{NotBefore: now.Add(-time.Duration(rng.Int64N(int64(3 * time.Hour)))).Truncate(time.Second), NotAfter: now.Add(time.Duration(rng.Int64N(int64(99 * time.Hour)))).Truncate(time.Second)}
		from, to, rule, err := decide(p, d)
		if err != nil {
			if rule == "" || !from.IsZero() || !to.IsZero() {
				t.Fatalf("%+v: rule %q, %v", d, rule, err)
			}
			continue
		}
		issued++
		switch {
		case !d.NotBefore.IsZero() && !from.Equal(d.NotBefore.Truncate(time.Second)), !d.NotAfter.IsZero() && !to.Equal(d.NotAfter.Truncate(time.Second)):
			t.Fatalf("%+v: other dates, %s to %s", d, from, to)
		case from.Before(d.Issuer.NotBefore), to.After(d.Issuer.NotAfter), !d.Proof.IsZero() && to.After(d.Proof):
			t.Fatalf("%+v: beyond what bounds it, %s to %s", d, from, to)
		case to.Sub(d.Now) < 9*time.Second, to.Sub(d.Now) > p.Lifetime.Max+time.Minute, from.After(d.Now.Add(time.Minute)):
			t.Fatalf("%+v: not about now, %s to %s", d, from, to)
		}
	}
	if issued < 500 {
		t.Errorf("%d of 20000 were issued: the cases show little", issued)
	}
}
