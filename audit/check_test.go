package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
)

const Day = 24 * time.Hour

// What is far from its end depends on the life it has and on who renews it.
func TestDatesAndRenewal(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	for _, c := range []struct {
		name      string
		ago, life time.Duration
		lineage   bool
		want      string
	}{
		{"a day, fresh", time.Hour, Day, false, "OK"},
		{"a day, in its renewal window", 17 * time.Hour, Day, false, "OK"},
		{"a day, late", 20 * time.Hour, Day, false, "OVERDUE renewal-overdue"},
		{"a day, over", 25 * time.Hour, Day, false, "EXPIRED expired"},
		{"a minute, in its renewal window", 41 * time.Second, time.Minute, false, "OK"},
		{"a minute, late", 55 * time.Second, time.Minute, false, "OVERDUE renewal-overdue"},
		{"a year, half of it left", 180 * Day, 365 * Day, false, "OK"},
		{"a year, 29 days left", 336 * Day, 365 * Day, false, "WARN expiring"},
		{"a year, 6 days left", 359 * Day, 365 * Day, false, "CRIT expiring"},
		{"a month, a third left", 21 * Day, 30 * Day, false, "WARN expiring"},
		{"a month, two days left", 28 * Day, 30 * Day, false, "CRIT expiring"},
		{"a month, recorded, a third left", 20 * Day, 30 * Day, true, "OK"},
		{"a month, recorded, late", 25 * Day, 30 * Day, true, "OVERDUE renewal-overdue"},
		{"from tomorrow on", -Day, Day, false, "NOT-YET not-yet-valid"},
	} {
		leaf := newPair(t, root, "svc", lives(c.ago, c.life))
		r := run(t, static{{Kind: "file", Place: "x", Cert: seen(leaf.cert), Lineage: c.lineage}})
		if got := states(t, r, "")["x"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// An authority's certificate is never "renewed by a program", however short its life.
	short := newPair(t, nil, "Short Root", authority, lives(20*time.Hour, Day))
	if got := states(t, run(t, static{{Place: "x", Cert: seen(short.cert)}}), "")["x"]; got != "CRIT expiring" && got != "WARN expiring" {
		t.Errorf("short-lived root: %s", got)
	}
}

func TestChains(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	stranger := newPair(t, nil, "Stranger Root", authority)
	other := newPair(t, stranger, "ingester")
	brief := newPair(t, root, "Brief Intermediate", authority, lives(Day, Day))
	orphan := newPair(t, brief, "orphan", lives(time.Hour, 10*Day))
	for _, c := range []struct {
		name          string
		leaf          *pair
		chain, bundle []*pair
		want          string
	}{
		{"whole", leaf, []*pair{intermediate}, []*pair{root}, "OK"},
		{"with its root", leaf, []*pair{intermediate, root}, []*pair{root}, "OK"},
		{"intermediate in the bundle", leaf, nil, []*pair{root, intermediate}, "OK"},
		{"no bundle", leaf, nil, nil, "OK"},
		{"intermediate missing", leaf, nil, []*pair{root}, "CRIT chain-incomplete"},
		{"another's bundle, root sent", leaf, []*pair{intermediate, root}, []*pair{stranger}, "CRIT untrusted"},
		{"another's bundle", leaf, []*pair{intermediate}, []*pair{stranger}, "CRIT chain-incomplete"},
		{"the wrong intermediate", other, []*pair{intermediate}, []*pair{root}, "CRIT chain-incomplete"},
		{"an expired intermediate", orphan, []*pair{brief}, []*pair{root}, "CRIT chain-invalid"},
	} {
		r := run(t, static{{Place: "x", Cert: seen(c.leaf.cert), Chain: seenAll(c.chain), Bundle: seenAll(c.bundle)}})
		if got := states(t, r, "")["x"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if unjudged := r.Unjudged == 1; unjudged != (c.bundle == nil) {
			t.Errorf("%s: %d chains not judged", c.name, r.Unjudged)
		}
	}
	// The leaf's own end is not a fault of its chain.
	late := newPair(t, intermediate, "late", lives(10*Day, 9*Day))
	r := run(t, static{{Place: "x", Cert: seen(late.cert), Chain: seenAll([]*pair{intermediate}), Bundle: seenAll([]*pair{root})}})
	if got := states(t, r, "")["x"]; got != "EXPIRED expired" {
		t.Errorf("expired leaf of a sound chain: %s", got)
	}
}

func TestKeysAndNames(t *testing.T) {
	_, _, leaf := hierarchy(t)
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
		c.s.Place, c.s.Cert = "x", seen(leaf.cert)
		if got := states(t, run(t, static{c.s}), "")["x"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", -90 * time.Second: "1m30s", time.Hour: "1h", 25 * time.Hour: "1d1h",
		100*time.Hour + 59*time.Minute: "4d4h", 400 * Day: "400d", 2*time.Hour + time.Second: "2h",
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
