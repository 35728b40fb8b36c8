package audit_test

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// issued is a certificate of a record.
type issued struct {
	service, lineage string
	pair             *certtest.Pair
	revoked          bool
}

// recorded returns a record with these certificates. Reading it ends with err.
func recorded(err error, list ...issued) audit.Record {
	slices.SortFunc(list, func(a, b issued) int { return b.pair.Cert.NotAfter.Compare(a.pair.Cert.NotAfter) })
	return audit.Record{Name: "ca", List: func(_ context.Context, yield func(audit.Recorded) bool) error {
		for _, i := range list {
			c, chain := i.pair.Cert, []byte(nil)
			if i.pair.Issuer != nil {
				chain = i.pair.Issuer.Cert.Raw
			}
			if !yield(audit.Recorded{
				Service: i.service, Lineage: i.lineage, Names: c.DNSNames, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: i.revoked, DER: c.Raw, Chain: chain,
			}) {
				break
			}
		}
		return err
	}}
}

func on(kind, place string, p *certtest.Pair) audit.Subject {
	s := audit.Subject{Kind: kind, Place: place, Cert: certtest.Seen(p.Cert)}
	if p.Issuer != nil {
		s.Chain = certtest.SeenAll([]*certtest.Pair{p.Issuer})
	}
	return s
}

// findings returns the text of the given checks for each row that has a finding of them.
func findings(r *audittest.Report, ids ...string) map[string]string {
	out := map[string]string{}
	for _, row := range r.Rows {
		for _, f := range row.Findings {
			if slices.Contains(ids, f.Check) {
				out[row.Kind+" "+row.Place+" "+f.Check] = f.Severity.String() + ": " + f.Text
			}
		}
	}
	return out
}

var drifts = []string{"replaced", "not-seen", "not-recorded", "renewer-stopped", "revoked"}

// TestUndelivered: where agents report what is served, a renewal that did not arrive is found
// without a look at the server. It is no finding while the agent may still be at it, and none when
// the certificate that was served has ended, because that may be of a program that is gone.
func TestUndelivered(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	var list []audit.Recorded
	add := func(service, served string, ago, life time.Duration) *certtest.Pair {
		pair := certtest.New(t, root, service, certtest.Lives(ago, life))
		c := pair.Cert
		list = append(list, audit.Recorded{
			Service: service, Lineage: service, Names: c.DNSNames, NotBefore: c.NotBefore, NotAfter: c.NotAfter, DER: c.Raw, Chain: root.Cert.Raw, Served: served,
		})
		return pair
	}
	here := add("here", "", 2*time.Hour, certtest.Day)
	add("stuck", "", 2*time.Hour, certtest.Day)
	add("stuck", "stuck:443", 18*time.Hour, certtest.Day)
	add("good", "good:443", 2*time.Hour, certtest.Day)
	add("good", "good:443", 18*time.Hour, certtest.Day)
	add("fresh", "", time.Minute, certtest.Day)
	add("fresh", "fresh:443", 18*time.Hour, certtest.Day)
	add("ended", "", 9*time.Hour, certtest.Day)
	add("ended", "ended:443", 25*time.Hour, certtest.Day)
	slices.SortFunc(list, func(a, b audit.Recorded) int { return b.NotAfter.Compare(a.NotAfter) })
	record := audit.Record{Name: "ca", List: func(_ context.Context, yield func(audit.Recorded) bool) error {
		for _, c := range list {
			if !yield(c) {
				break
			}
		}
		return nil
	}}
	const stuck = "warn: its agent has not proved that a server uses it, and has found the one that it replaces at stuck:443"
	audittest.Want(t, findings(audittest.Run(t, record), drifts...), map[string]string{"record ca: stuck not-seen": stuck})
	r := audittest.Run(t, audittest.Static{on("file", "/here.crt", here)}, record)
	audittest.Want(t, findings(r, drifts...), map[string]string{
		"record ca: stuck not-seen": stuck,
		"record ca: good not-seen":  "info: it is in the record and was not found anywhere else; its agent says that good:443 serves it",
		"record ca: ended not-seen": "info: it is in the record and was not found anywhere else",
	})
}

// One service is renewed as it should be, and others have a fault each.
func TestDrift(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	renewal := func(cn string, ago time.Duration) *certtest.Pair {
		return certtest.New(t, root, cn, certtest.Lives(ago, certtest.Day))
	}
	good, before := renewal("good", 2*time.Hour), renewal("good", 18*time.Hour)
	unread, unreadNew := renewal("unread", 18*time.Hour), renewal("unread", 2*time.Hour)
	unwritten, unwrittenNew := renewal("unwritten", 18*time.Hour), renewal("unwritten", 2*time.Hour)
	justNow, justNowNew := renewal("just-now", 16*time.Hour), renewal("just-now", time.Minute)
	lost, withdrawn, forged := renewal("lost", 2*time.Hour), renewal("withdrawn", 2*time.Hour), renewal("forged", 2*time.Hour)
	late, ended := renewal("late", time.Second), renewal("ended", 2*certtest.Day)
	stranger := certtest.New(t, certtest.New(t, nil, "Other Root", certtest.Authority), "stranger")
	pretender := certtest.New(t, certtest.New(t, nil, "Test Root", certtest.Authority), "pretender")
	record := recorded(nil,
		issued{"good", "1", good, false}, issued{"good", "1", before, false},
		issued{"unread", "2", unread, false}, issued{"unread", "2", unreadNew, false},
		issued{"unwritten", "3", unwritten, false}, issued{"unwritten", "3", unwrittenNew, false},
		issued{"just-now", "4", justNow, false}, issued{"just-now", "4", justNowNew, false},
		issued{"lost", "5", lost, false}, issued{"withdrawn", "6", withdrawn, true},
	)
	looked := audittest.Static{
		on("file", "/good.crt", good), on("file", "/unread.crt", unreadNew), on("file", "/unwritten.crt", unwritten), on("file", "/withdrawn.crt", withdrawn),
		on("file", "/forged.crt", forged), on("file", "/stranger.crt", stranger), on("file", "/pretender.crt", pretender),
		on("file", "/late.crt", late), on("file", "/ended.crt", ended), on("file", "/root.crt", root),
		on("endpoint", "good:1", good), on("endpoint", "unread:1", unread), on("endpoint", "unwritten:1", unwritten), on("endpoint", "just-now:1", justNow),
	}
	r := audittest.Run(t, record, looked)
	// The record's rows come when the others are known.
	if got := findings(r, "not-seen"); len(got) != 0 {
		t.Errorf("a record that comes first knows nothing of what follows: %v", got)
	}
	r = audittest.Run(t, looked, record)
	serial := "0x" + unreadNew.Cert.SerialNumber.Text(16)
	audittest.Want(t, findings(r, drifts...), map[string]string{
		"endpoint unread:1 replaced":       "warn: a server shows it, and it was replaced 1h59m ago by " + serial + ", which lies in /unread.crt",
		"endpoint unwritten:1 replaced":    "warn: a server shows it, and it was replaced 1h59m ago by 0x" + unwrittenNew.Cert.SerialNumber.Text(16) + ", which was not found on disk",
		"record ca: unwritten not-seen":    "warn: it was not found, and the one that it replaces is still in unwritten:1",
		"record ca: lost not-seen":         "info: it is in the record and was not found anywhere else",
		"file /withdrawn.crt revoked":      "crit: the record says that it is revoked",
		"file /forged.crt not-recorded":    "crit: Test Root signed it, and its record does not know it",
		"file /stranger.crt not-recorded":  "info: another authority than the record's issued it: Other Root",
		"file /pretender.crt not-recorded": "warn: it says that Test Root issued it, which has not signed it",
	})
	if got := audittest.States(t, r, "")["ca: lost"]; got != "OK not-seen" || r.Info < 2 || r.Fine != r.Certificates-r.Warn-r.Crit {
		t.Errorf("%s, %+v", got, r.Summary)
	}
	// A record alone has nothing to be compared with, and half a record is none.
	if got := findings(audittest.Run(t, record), drifts...); len(got) != 0 {
		t.Errorf("a record alone: %v", got)
	}
	record.List = recorded(errors.New("disk I/O error"), issued{"lost", "5", lost, false}).List
	if got := findings(audittest.Run(t, looked, record), "not-seen", "not-recorded"); len(got) != 0 {
		t.Errorf("half a record: %v", got)
	}
}

// A certificate that is renewed during the audit is no finding.
func TestRenewedMeanwhile(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	before, after := certtest.New(t, root, "svc", certtest.Lives(16*time.Hour, certtest.Day)), certtest.New(t, root, "svc", certtest.Lives(0, certtest.Day))
	r := audittest.Run(t, audittest.Static{on("endpoint", "svc:1", after)}, recorded(nil, issued{"svc", "1", before, false}))
	if got := findings(r, drifts...); len(got) != 0 {
		t.Error(got)
	}
}

// Without a record, a younger certificate with the same names is the successor.
func TestDriftWithoutRecord(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	before, after := certtest.New(t, root, "svc", certtest.Lives(18*time.Hour, certtest.Day)), certtest.New(t, root, "svc", certtest.Lives(2*time.Hour, certtest.Day))
	other := certtest.New(t, root, "other", certtest.Lives(time.Hour, certtest.Day))
	served := on("endpoint", "svc:1", before)
	for _, c := range []struct {
		name   string
		onDisk audittest.Static
		want   string
	}{
		{"the file is newer", audittest.Static{on("file", "/a.crt", after), on("file", "/other.crt", other)}, "warn: a server shows it, and one with the same names that is 16h younger lies in /a.crt"},
		{"the same", audittest.Static{on("file", "/a.crt", before)}, ""},
		{"replicas", audittest.Static{on("file", "/a.crt", after), on("file", "/b.crt", before)}, ""},
		{"another's", audittest.Static{on("file", "/other.crt", other)}, ""},
		{"a moment ago", audittest.Static{on("file", "/a.crt", certtest.New(t, root, "svc", certtest.Lives(2*time.Minute, certtest.Day)))}, ""},
	} {
		if got := findings(audittest.Run(t, c.onDisk, audittest.Static{served}), drifts...)["endpoint svc:1 replaced"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Paths are audited before servers, in whatever order they were named.
func TestServersComeLast(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	before, after := certtest.New(t, root, "localhost", certtest.Lives(18*time.Hour, certtest.Day)), certtest.New(t, root, "localhost", certtest.Lives(2*time.Hour, certtest.Day))
	dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(after)})
	address := audittest.Serve(t, &tls.Config{Certificates: []tls.Certificate{before.TLS()}, MinVersion: tls.VersionTLS13})
	r := audittest.Run(t, source.Targets{Names: []string{address, dir}, Bundle: certtest.Bundle([]*certtest.Pair{root}), Timeout: audittest.Patience})
	if got := findings(r, drifts...); len(got) != 1 || !strings.HasSuffix(got["endpoint "+address+" replaced"], "lies in "+dir+"/tls.crt") {
		t.Error(got)
	}
	// Only files: there is nothing to compare them with, and nothing is kept.
	if got := findings(audittest.Run(t, source.Targets{Names: []string{dir}}), drifts...); len(got) != 0 {
		t.Error(got)
	}
}

func TestRenewerStopped(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	for _, c := range []struct {
		name  string
		hours []int // since each issue
		want  string
	}{
		{"daily, and three days ago", []int{72, 96, 120, 144}, "warn: it was renewed every 1d at least, has not been for 2d23h, and the next renewal was to be expected 1d23h ago"},
		{"daily", []int{20, 44, 68, 92}, ""},
		{"twice is no habit", []int{72, 96, 120}, ""},
		{"sometimes late", []int{72, 96, 140, 164}, ""},
		{"overdue says it already", []int{300, 324, 348, 372}, ""},
		{"several at once are one", []int{200, 200, 201, 201, 202}, ""},
		{"daily, some of them twice", []int{72, 73, 96, 120, 121, 144}, "warn: it was renewed every 1d at least, has not been for 2d23h, and the next renewal was to be expected 1d23h ago"},
	} {
		var list []issued
		for _, h := range c.hours {
			list = append(list, issued{"svc", "1", certtest.New(t, root, "svc", certtest.Lives(time.Duration(h)*time.Hour, 15*certtest.Day)), false})
		}
		if got := findings(audittest.Run(t, recorded(nil, list...)), drifts...)["record ca: svc renewer-stopped"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// The rows of two replicas differ in the serial number, in the table and in the
// explanation.
func TestRecordRowsDiffer(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	one, two := certtest.New(t, root, "svc", certtest.Lives(time.Hour, certtest.Day)), certtest.New(t, root, "svc", certtest.Lives(time.Hour, certtest.Day))
	r := audittest.Run(t, recorded(nil, issued{"svc", "1", one, false}, issued{"svc", "2", two, false}))
	var b strings.Builder
	certtest.Must(t, r.WriteTable(&b, 0))
	certtest.Must(t, r.Explain(&b))
	for _, p := range []*certtest.Pair{one, two} {
		if n := strings.Count(b.String(), "ca: svc 0x"+p.Cert.SerialNumber.Text(16)); n != 2 {
			t.Errorf("serial of a replica: %d times in\n%s", n, b.String())
		}
	}
}
