package audit_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// recordEntry is a certificate of a record: its service and lineage, and its dates in
// hours from now.
type recordEntry struct {
	service, lineage string
	from, to         int
	revoked          bool
}

func record(t *testing.T, entries ...recordEntry) audit.Record {
	t.Helper()
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	now := time.Now().Truncate(time.Second)
	var list []audit.Recorded
	for _, e := range entries {
		from, to := now.Add(time.Duration(e.from)*time.Hour), now.Add(time.Duration(e.to)*time.Hour)
		list = append(list, audit.Recorded{
			Service: e.service, Lineage: e.lineage, Names: []string{e.service, "localhost"}, NotBefore: from, NotAfter: to, Revoked: e.revoked,
			DER: certtest.New(t, root, e.service+" "+e.lineage, certtest.Dates(from, to)).Cert.Raw,
		})
	}
	slices.SortFunc(list, func(a, b audit.Recorded) int { return b.NotAfter.Compare(a.NotAfter) })
	return audit.Record{Name: "ca", List: func(_ context.Context, yield func(audit.Recorded) bool) error {
		for _, r := range list {
			if !yield(r) {
				break
			}
		}
		return nil
	}}
}

func TestRecord(t *testing.T) {
	r := audittest.Run(t, record(t,
		recordEntry{"renewed", "a", -40, -16, false}, recordEntry{"renewed", "a", -24, 0, false}, recordEntry{"renewed", "a", -8, 16, false},
		recordEntry{"late", "b", -20, 4, false},
		recordEntry{"dead", "c", -100, -76, false},
		recordEntry{"gone", "d", -2000, -1976, false},
		recordEntry{"revoked", "e", -20, 4, true},
		recordEntry{"revoked before", "f", -40, -16, false}, recordEntry{"revoked before", "f", -20, 4, true},
		recordEntry{"enrolled again", "g", -60, -36, false}, recordEntry{"enrolled again", "h", -2, 22, false},
		// Replicas: both began before the other's latest renewal, and one has stopped.
		recordEntry{"replica", "i", -50, -26, false}, recordEntry{"replica", "i", -30, -6, false},
		recordEntry{"replica", "j", -45, -21, false}, recordEntry{"replica", "j", -2, 22, false},
	))
	got := map[string]string{}
	for _, row := range r.Rows {
		state := row.State
		for _, f := range row.Findings {
			state += " " + f.Check
		}
		got[row.Place+" "+row.Cert.X509().Subject.CommonName] = state
	}
	audittest.Want(t, got, map[string]string{
		"ca: renewed renewed a":               "OK",
		"ca: late late b":                     "OVERDUE renewal-overdue",
		"ca: dead dead c":                     "EXPIRED expired",
		"ca: enrolled again enrolled again h": "OK",
		"ca: replica replica i":               "EXPIRED expired",
		"ca: replica replica j":               "OK",
	})
	if r.Unjudged != 0 {
		t.Error("chains of a record are not for judging")
	}
}

// A record can be the only source.
func TestRecordAlone(t *testing.T) {
	var got []string
	r := record(t, recordEntry{"renewed", "a", -40, -16, false}, recordEntry{"renewed", "a", -8, 16, false}, recordEntry{"late", "b", -20, 4, false})
	r.Collect(t.Context(), func(s audit.Subject) {
		if s.Err != nil || s.Cert.X509().NotAfter.Before(time.Now()) {
			t.Errorf("%+v", s)
		}
		got = append(got, s.Place)
	})
	if want := []string{"ca: late", "ca: renewed"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestDamagedRecord(t *testing.T) {
	r := audittest.Run(t, audit.Record{Name: "ca", List: func(_ context.Context, yield func(audit.Recorded) bool) error {
		yield(audit.Recorded{Service: "svc", Lineage: "a", NotAfter: time.Now(), DER: []byte("x")})
		return errors.New("disk I/O error")
	}})
	if _, unchecked := r.Count(audit.Warn); unchecked != 2 {
		t.Errorf("%v", audittest.States(t, r, ""))
	}
	if got := audittest.States(t, r, "")["ca"]; got != "ERROR disk I/O error" {
		t.Error(got)
	}
}

// The record is judged as of the moment of reading, because services renew while the other
// sources are asked.
func TestRecordIsJudgedAsRead(t *testing.T) {
	source := record(t, recordEntry{"svc", "a", -8, 16, false})
	source.Now = time.Now()
	r, err := audittest.Judge(t.Context(), audit.Config{
		Sources: []audit.Source{source},
		Now:     func() time.Time { return source.Now.Add(24 * time.Hour) },
	})
	certtest.Must(t, err)
	if len(r.Rows) != 1 || r.Rows[0].State != "OK" || !r.Rows[0].Judged.Equal(source.Now) {
		t.Errorf("%+v", r.Rows)
	}
}
