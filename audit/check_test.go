package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// Whether a certificate is near its end depends on its whole life, and on whether a
// program renews it.
func TestDatesAndRenewal(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	for _, c := range []struct {
		name      string
		ago, life time.Duration
		lineage   bool
		want      string
	}{
		{"a day, fresh", time.Hour, certtest.Day, false, "OK"},
		{"a day, in its renewal window", 17 * time.Hour, certtest.Day, false, "OK"},
		{"a day, late", 20 * time.Hour, certtest.Day, false, "OVERDUE renewal-overdue"},
		{"a day, over", 25 * time.Hour, certtest.Day, false, "EXPIRED expired"},
		{"a minute, in its renewal window", 41 * time.Second, time.Minute, false, "OK"},
		{"a minute, late", 55 * time.Second, time.Minute, false, "OVERDUE renewal-overdue"},
		{"a year, half of it left", 180 * certtest.Day, 365 * certtest.Day, false, "OK"},
		{"a year, 29 days left", 336 * certtest.Day, 365 * certtest.Day, false, "WARN expiring"},
		{"a year, 6 days left", 359 * certtest.Day, 365 * certtest.Day, false, "CRIT expiring"},
		{"a month, a third left", 21 * certtest.Day, 30 * certtest.Day, false, "WARN expiring"},
		{"a month, two days left", 28 * certtest.Day, 30 * certtest.Day, false, "CRIT expiring"},
		{"a month, recorded, a third left", 20 * certtest.Day, 30 * certtest.Day, true, "OK"},
		{"a month, recorded, late", 25 * certtest.Day, 30 * certtest.Day, true, "OVERDUE renewal-overdue"},
		{"from tomorrow on", -certtest.Day, certtest.Day, false, "NOT-YET not-yet-valid"},
	} {
		leaf := certtest.New(t, root, "svc", certtest.Lives(c.ago, c.life))
		r := audittest.Run(t, audittest.Static{{Kind: "file", Place: "x", Cert: certtest.Seen(leaf.Cert), Lineage: c.lineage}})
		if got := audittest.States(t, r, "")["x"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// An authority's certificate is never "renewed by a program", however short its life.
	short := certtest.New(t, nil, "Short Root", certtest.Authority, certtest.Lives(20*time.Hour, certtest.Day))
	if got := audittest.States(t, audittest.Run(t, audittest.Static{{Place: "x", Cert: certtest.Seen(short.Cert)}}), "")["x"]; got != "CRIT expiring" && got != "WARN expiring" {
		t.Errorf("short-lived root: %s", got)
	}
}

func TestChains(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	stranger := certtest.New(t, nil, "Stranger Root", certtest.Authority)
	other := certtest.New(t, stranger, "ingester")
	brief := certtest.New(t, root, "Brief Intermediate", certtest.Authority, certtest.Lives(certtest.Day, certtest.Day))
	orphan := certtest.New(t, brief, "orphan", certtest.Lives(time.Hour, 10*certtest.Day))
	for _, c := range []struct {
		name          string
		leaf          *certtest.Pair
		chain, bundle []*certtest.Pair
		want          string
	}{
		{"whole", leaf, []*certtest.Pair{intermediate}, []*certtest.Pair{root}, "OK"},
		{"with its root", leaf, []*certtest.Pair{intermediate, root}, []*certtest.Pair{root}, "OK"},
		{"intermediate in the bundle", leaf, nil, []*certtest.Pair{root, intermediate}, "OK"},
		{"no bundle", leaf, nil, nil, "OK"},
		{"intermediate missing", leaf, nil, []*certtest.Pair{root}, "CRIT chain-incomplete"},
		{"another's bundle, root sent", leaf, []*certtest.Pair{intermediate, root}, []*certtest.Pair{stranger}, "CRIT untrusted"},
		{"another's bundle", leaf, []*certtest.Pair{intermediate}, []*certtest.Pair{stranger}, "CRIT chain-incomplete"},
		{"the wrong intermediate", other, []*certtest.Pair{intermediate}, []*certtest.Pair{root}, "CRIT chain-incomplete"},
		{"an expired intermediate", orphan, []*certtest.Pair{brief}, []*certtest.Pair{root}, "CRIT chain-invalid"},
	} {
		r := audittest.Run(t, audittest.Static{{Place: "x", Cert: certtest.Seen(c.leaf.Cert), Chain: certtest.SeenAll(c.chain), Bundle: certtest.SeenAll(c.bundle)}})
		if got := audittest.States(t, r, "")["x"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if unjudged := r.Unjudged == 1; unjudged != (c.bundle == nil) {
			t.Errorf("%s: %d chains not judged", c.name, r.Unjudged)
		}
	}
	// One that has signed itself is judged without a bundle.
	self := certtest.New(t, nil, "self")
	if r := audittest.Run(t, audittest.Static{{Place: "x", Cert: certtest.Seen(self.Cert)}}); r.Unjudged != 0 || audittest.States(t, r, "")["x"] != "CRIT untrusted" {
		t.Errorf("signed itself: %s, %d chains not judged", audittest.States(t, r, "")["x"], r.Unjudged)
	}
	// The leaf's own end is not a fault of its chain.
	late := certtest.New(t, intermediate, "late", certtest.Lives(10*certtest.Day, 9*certtest.Day))
	r := audittest.Run(t, audittest.Static{{Place: "x", Cert: certtest.Seen(late.Cert), Chain: certtest.SeenAll([]*certtest.Pair{intermediate}), Bundle: certtest.SeenAll([]*certtest.Pair{root})}})
	if got := audittest.States(t, r, "")["x"]; got != "EXPIRED expired" {
		t.Errorf("expired leaf of a sound chain: %s", got)
	}
}

func TestKeysAndNames(t *testing.T) {
	_, _, leaf := certtest.Hierarchy(t)
	for _, c := range []struct {
		name string
		s    audit.Subject
		want string
	}{
		{"fits", audit.Subject{Key: &cert.KeyFile{Path: "k", Mode: 0o600, Fits: true}}, "OK"},
		{"does not fit", audit.Subject{Key: &cert.KeyFile{Path: "k", Mode: 0o600}}, "CRIT key-mismatch"},
		{"group may read", audit.Subject{Key: &cert.KeyFile{Path: "k", Mode: 0o640, Fits: true}}, "WARN key-readable"},
		{"both", audit.Subject{Key: &cert.KeyFile{Path: "k", Mode: 0o644}}, "CRIT key-mismatch key-readable"},
		{"its name", audit.Subject{Host: "ingester"}, "OK"},
		{"its address", audit.Subject{Host: "127.0.0.1"}, "OK"},
		{"another name", audit.Subject{Host: "storage"}, "CRIT name-mismatch"},
	} {
		c.s.Place, c.s.Cert = "x", certtest.Seen(leaf.Cert)
		if got := audittest.States(t, audittest.Run(t, audittest.Static{c.s}), "")["x"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", -90 * time.Second: "1m30s", time.Hour: "1h", 25 * time.Hour: "1d1h",
		100*time.Hour + 59*time.Minute: "4d4h", 400 * certtest.Day: "400d", 2*time.Hour + time.Second: "2h",
	} {
		if got := humantime.Short(humantime.InSeconds(d)); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestSeverityText(t *testing.T) {
	for s, want := range map[audit.Severity]string{audit.Warn: "warn", audit.Crit: "crit"} {
		if b, err := s.MarshalText(); err != nil || string(b) != want || !strings.EqualFold(s.String(), want) {
			t.Errorf("%d: %s, %v", s, b, err)
		}
	}
}
