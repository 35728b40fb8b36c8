package ca_test

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

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
		d        ca.Dates
		from, to time.Time
		rule     string
	}{
		"nothing asked":               {ca.Dates{}, sec.Add(-time.Minute), sec.Add(time.Hour), ""},
		"longer than the default":     {ca.Dates{NotAfter: in(2 * time.Hour)}, sec.Add(-time.Minute), sec.Add(2 * time.Hour), ""},
		"the least":                   {ca.Dates{NotAfter: in(5 * time.Minute)}, sec.Add(-30 * time.Second), sec.Add(5 * time.Minute), ""},
		"less than the least":         {ca.Dates{NotAfter: in(5*time.Minute - 1)}, open, open, "lifetime"},
		"more than the most":          {ca.Dates{NotAfter: in(72*time.Hour + 2*time.Minute)}, open, open, "lifetime"},
		"beyond the issuer":           {ca.Dates{NotAfter: in(60 * time.Hour)}, open, open, "within the issuer's life"},
		"beyond the proof":            {ca.Dates{NotAfter: in(2 * time.Hour), Proof: in(time.Hour)}, open, open, "within the proof's life"},
		"until the end of the proof":  {ca.Dates{NotAfter: in(time.Hour), Proof: in(time.Hour)}, sec.Add(-time.Minute), sec.Add(time.Hour), ""},
		"the default, cut":            {ca.Dates{Proof: sec.Add(20 * time.Minute)}, sec.Add(-time.Minute), sec.Add(20 * time.Minute), ""},
		"the default, cut to nothing": {ca.Dates{Proof: sec.Add(10 * time.Second)}, open, open, "within the proof's life"},
		"a begin in the past":         {ca.Dates{NotBefore: in(-20 * time.Minute)}, sec.Add(-20 * time.Minute), sec.Add(40 * time.Minute), ""},
		"a begin before the issuer":   {ca.Dates{NotBefore: in(-40 * time.Minute)}, open, open, "within the issuer's life"},
		"a begin long ago":            {ca.Dates{NotBefore: in(-61 * time.Minute)}, open, open, "lifetime"},
		"a begin a little ahead":      {ca.Dates{NotBefore: in(30 * time.Second), NotAfter: in(time.Hour)}, sec.Add(30 * time.Second), sec.Add(time.Hour), ""},
		"a begin ahead":               {ca.Dates{NotBefore: in(2 * time.Minute)}, open, open, "lifetime"},
		"an end in the past":          {ca.Dates{NotAfter: in(-time.Minute)}, open, open, "lifetime"},
		"an end before the begin":     {ca.Dates{NotBefore: in(30 * time.Second), NotAfter: in(20 * time.Second)}, open, open, "lifetime"},
		"little left of a long life":  {ca.Dates{NotBefore: in(-20 * time.Minute), NotAfter: in(time.Minute)}, open, open, "lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.d.Now, tc.d.Issuer = now, issuer
			from, to, rule, err := ca.Validity(spans(), tc.d)
			if rule != tc.rule || (err == nil) != (tc.rule == "") || !from.Equal(tc.from) || !to.Equal(tc.to) {
				t.Errorf("%s to %s, rule %q, %v", from, to, rule, err)
			}
		})
	}
	brief := &x509.Certificate{NotBefore: in(-time.Hour), NotAfter: in(9 * time.Second)}
	if _, _, rule, err := ca.Validity(spans(), ca.Dates{Now: now, Issuer: brief}); rule != "within the issuer's life" {
		t.Errorf("an issuer at its end: rule %q, %v", rule, err)
	}
	ten := policy.Profile{Names: []string{"ten"}}
	ten.Lifetime.Min, ten.Lifetime.Default = 10*time.Second, 10*time.Second
	if _, to, _, err := ca.Validity(ten, ca.Dates{Now: now, Issuer: issuer}); err != nil || !to.Equal(sec.Add(10*time.Second)) {
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
		d := ca.Dates{NotBefore: near(), NotAfter: near(), Proof: near().Truncate(time.Second), Now: now.Add(time.Duration(rng.Int64N(1e9)))}
		d.Issuer = &x509.Certificate{NotBefore: now.Add(-time.Duration(rng.Int64N(int64(3 * time.Hour)))).Truncate(time.Second), NotAfter: now.Add(time.Duration(rng.Int64N(int64(99 * time.Hour)))).Truncate(time.Second)}
		from, to, rule, err := ca.Validity(p, d)
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

// At each entrance of POST /sign, with dates of every form that step sends.
func TestDatesAsAsked(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{"spans": spans()}, Edit: withProvisioner(ownX5C)})
	cl := newClient(t, c, nil)
	holder := enrol(t, c, "spans", "spans")
	key := newKey(t)
	entrances := map[string]func() stepapi.SignRequest{
		"token": func() stepapi.SignRequest { return signRequest(t, c.Token(t, "spans"), key, "spans", "spans") },
		"x5c": func() stepapi.SignRequest {
			return x5cToken(t, c, holder, "/sign", nil).request(t, key, "spans", "spans")
		},
	}
	moment := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339Nano) }
	zone := time.FixedZone("", 5*3600+1800)
	for _, text := range [][2]string{
		{"", ""}, {"", "30m"}, {"", "71h"}, {"", "73h"}, {"", "1m"}, {"", "-5m"}, {"", "0s"}, {"-5m", ""}, {"-5m", "20m"}, {"0s", "20m"}, {"20s", "20m"}, {"-2h", "30m"},
		{"48h", ""}, {"48h", "20m"}, {"", moment(40 * time.Minute)}, {moment(-time.Minute), moment(40 * time.Minute)}, {"", time.Now().Add(20 * time.Minute).In(zone).Format(time.RFC3339)},
		{"2031-01-01T00:00:00Z", ""}, {"", "2031-01-01T00:00:00Z"}, {"", "9999-12-31T23:59:59Z"}, {"1970-01-01T00:00:00Z", "20m"}, {"", "2562047h"},
	} {
		for entrance, request := range entrances {
			t.Run(fmt.Sprintf("%s from %q to %q", entrance, text[0], text[1]), func(t *testing.T) {
				req, before := request(), time.Now()
				req.NotBefore, req.NotAfter = text[0], text[1]
				status, body := cl.do("POST", "/sign", req)
				if status != http.StatusCreated {
					if m := message(t, body); status != http.StatusForbidden || !strings.Contains(m, "(rule: ") {
						t.Errorf("%d %q: no rule is named", status, m)
					}
					return
				}
				leaf := pair(t, body, key).Leaf
				asked := func(text string, base time.Time) time.Time {
					if d, err := time.ParseDuration(text); err == nil {
						return base.Add(d)
					}
					at, err := time.Parse(time.RFC3339, text)
					if err != nil {
						t.Fatal(err)
					}
					return at
				}
				// A relative date may be as much later as the request took.
				fits := func(what string, got, want time.Time) {
					if late := got.Sub(want.Truncate(time.Second)); late < 0 || late > time.Since(before)+time.Second {
						t.Errorf("%s is %s, asked for %s", what, got, want)
					}
				}
				base := before
				if text[0] != "" {
					base = asked(text[0], before)
					fits("notBefore", leaf.NotBefore, base)
				}
				if text[1] != "" {
					fits("notAfter", leaf.NotAfter, asked(text[1], base))
				}
			})
		}
	}
	c.Check(t)
}
