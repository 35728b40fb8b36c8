package ca_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// spans has a default between minimum and maximum, so that each of the three shows.
func spans() policy.Profile {
	p := policy.Profile{Names: []string{"spans"}}
	p.Lifetime.Min, p.Lifetime.Default, p.Lifetime.Max = 5*time.Minute, time.Hour, 72*time.Hour
	return p
}

// Every route to POST /sign takes dates of every form that step sends.
func TestDatesAsAsked(t *testing.T) {
	t.Parallel()
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
				// A relative date counts from when the request is read, which is later.
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
