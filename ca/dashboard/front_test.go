package dashboard

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
)

// TestVerdict has an outlook for each sentence, and expects the sentence with its class.
func TestVerdict(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 30, 0, 0, time.UTC)
	holder := func(begin, end time.Duration) query.Holder {
		from, to := now.Add(begin), now.Add(end)
		life := to.Sub(from)
		return query.Holder{Service: "ingester", NotBefore: from, NotAfter: to, Due: from.Add(life * 7 / 10), OverdueAt: from.Add(life * 8 / 10)}
	}
	authority := func(begin, end time.Duration) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: "Root"}, NotBefore: now.Add(begin), NotAfter: now.Add(end)}
	}
	fine := func(live int64) outlook {
		o := outlook{now: now, cas: []*x509.Certificate{authority(-100*time.Hour, 900*time.Hour), authority(-100*time.Hour, 900*time.Hour)}}
		o.Live, o.Ends, o.Dues, o.Done = live, make([]int64, query.Hours), make([]int64, query.Hours), make([]int64, query.Hours)
		if live > 0 {
			o.next = []query.Holder{holder(-time.Hour, 23*time.Hour)}
		}
		return o
	}
	for _, c := range []struct {
		change      func(*outlook)
		live        int64
		title, rest string
		class       string
	}{
		{nil, 0, "Nobody holds a certificate yet", "", page.None},
		{nil, 1, "The one certificate in use is fine", "that of ingester, in 23h; it renews by 19:18 UTC", page.OK},
		{nil, 214, "All 214 certificates in use are fine", "", page.OK},
		{func(o *outlook) { o.Overdue, o.next = 3, []query.Holder{holder(-21*time.Hour, 3*time.Hour)} }, 5, "3 certificates are overdue for renewal.", "should have renewed 4h12m ago", page.Warn},
		{func(o *outlook) { o.Overdue, o.next = 1, []query.Holder{holder(-23*time.Hour, time.Minute)} }, 5, "1 certificate is overdue for renewal.", "in 1m", page.Crit},
		{func(o *outlook) { o.Overdue = query.Most + 1 }, 5000, "More than 1000 certificates are overdue for renewal.", "", page.Warn},
		{func(o *outlook) { o.Ends[3], o.Ends[4] = 30, 50 }, 100, "50 of 100 certificates end in one hour, from 07:00 UTC", "", page.Warn},
		{func(o *outlook) { o.Ends[3] = crowd - 1 }, crowd, "All 20 certificates in use are fine", "", page.OK},
		{func(o *outlook) { o.Lapsed = 2 }, 5, "2 certificates have ended without a renewal in the last 24 h.", "", page.Warn},
		{func(o *outlook) { o.Pending, o.Oldest = 2, now.Add(-2*time.Minute) }, 5, "2 events have had no place in the log for 2m:", "", page.Crit},
		{func(o *outlook) { o.Pending, o.Oldest = 500, now.Add(-time.Second) }, 5, "All 5 certificates in use are fine", "", page.OK},
		{func(o *outlook) { o.cas[0] = authority(-910*time.Hour, 90*time.Hour) }, 5, `"Root" ends in 3d18h: begin with its successor.`, "", page.Warn},
		{func(o *outlook) { o.cas[1] = authority(-910*time.Hour, -time.Hour) }, 5, `"Root" has ended`, "", page.Crit},
		{func(o *outlook) { o.staged = `Root "R" is staged.` }, 5, "All 5 certificates in use are fine", "", page.OK},
		{func(o *outlook) { o.next[0].LineageRevoked = true }, 5, "All 5", "its lineage is revoked, so nobody renews it", page.OK},
		{func(o *outlook) { o.Lapsed, o.Pending, o.Oldest = 2, 1, now.Add(-time.Hour) }, 5, "1 event has had no place", "", page.Crit}, // the worst first
	} {
		o := fine(c.live)
		if c.change != nil {
			c.change(&o)
		}
		p := o.page()
		if !strings.HasPrefix(p.Title, c.title) || p.Class != c.class || !strings.Contains(strings.Join(p.Rest, " "), c.rest) {
			t.Errorf("%q (%s) %q, want %q (%s) with %q", p.Title, p.Class, p.Rest, c.title, c.class, c.rest)
		}
	}
}
