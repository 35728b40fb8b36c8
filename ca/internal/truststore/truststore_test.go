package truststore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// TestOneChangeWins stores the same version from several callers at once.
func TestOneChangeWins(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		db, err := sqldb.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		s := truststore.New(db)
		refusal := errors.New("somebody would be cut off")
		change := truststore.NextVersion{Version: truststore.Version{Number: 1, Document: []byte("one")}, Event: record.Event{At: time.Now(), Caller: "operator"}}
		refused := change
		refused.Decide = func([]truststore.Holding) error { return refusal }
		if err := s.Change(t.Context(), refused); !errors.Is(err, refusal) {
			t.Errorf("a change that was refused: %v", err)
		}
		if v, err := s.Newest(t.Context()); err != nil || v.Number != 0 {
			t.Errorf("a change that was refused was stored: %+v, %v", v, err)
		}
		var won atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				switch err := s.Change(t.Context(), change); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, truststore.ErrChanged):
					t.Errorf("a change that lost: %v", err)
				}
			})
		}
		all.Wait()
		if v, err := s.Newest(t.Context()); err != nil || won.Load() != 1 || v.Number != 1 || string(v.Document) != "one" {
			t.Errorf("%d changes were stored; %+v, %v", won.Load(), v, err)
		}
	})
}

// TestReports: reports of processes with copies of one certificate stand side by side, each in
// place of the one before of its process, and there is a bounded number of them.
func TestReports(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		db, err := sqldb.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		s := store.New(db)
		defer func() { _ = s.Close() }()
		at := time.Now().UTC().Truncate(time.Millisecond)
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: held(at)}); err != nil {
			t.Fatal(err)
		}
		report := func(after time.Duration, reporter, digest string) []string {
			t.Helper()
			r := record.TrustReport{Lineage: "1", Serial: "1", Reporter: reporter, Digest: digest, At: at.Add(after), Due: at.Add(after + 15*time.Minute)}
			if err := s.ReportTrust(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			live, err := truststore.New(db).Holdings(t.Context(), at)
			if err != nil || len(live) != 1 {
				t.Fatalf("%d certificates, %v", len(live), err)
			}
			var said []string
			for _, r := range live[0].Reports {
				said = append(said, r.Digest)
			}
			slices.Sort(said)
			return said
		}
		for i, step := range []struct {
			after            time.Duration
			reporter, digest string
			want             string
		}{
			{0, "a", "old", "old"},
			{time.Minute, "b", "old", "old old"},
			{2 * time.Minute, "a", "new", "new old"}, // b has not followed
			{3 * time.Minute, "", "new", "new new old"},
			{4 * time.Minute, "", "old", "new new old old"}, // without a name, a contradiction stays
			{10 * time.Minute, "b", "new", "new new new old"},
			{20 * time.Minute, "a", "new", "new new"}, // what nobody repeats is overdue
		} {
			if got := strings.Join(report(step.after, step.reporter, step.digest), " "); got != step.want {
				t.Errorf("step %d: %s, want %s", i, got, step.want)
			}
		}
		var said []string
		for i := range 100 {
			said = report(time.Hour, fmt.Sprint("many-", i), "new")
		}
		if len(said) != truststore.MaxReports+1 || said[0] != "" {
			t.Errorf("of 100 processes: %q", said)
		}
	})
}

// TestCounting: a report ends with the next one of the holder of its successor, and the last one
// of a lineage counts however old it is.
func TestCounting(t *testing.T) {
	at := time.Now()
	report := func(after time.Duration, serial, successor string) record.TrustReport {
		return record.TrustReport{Serial: serial, Successor: successor, Reporter: serial + successor, At: at.Add(after), Due: at.Add(after + time.Hour)}
	}
	old, renewal, copied, next := report(0, "1", ""), report(time.Minute, "1", "2"), report(2*time.Minute, "1", ""), report(3*time.Minute, "2", "")
	late := report(3*time.Hour, "3", "")
	past := report(0, "1", "")
	past.Due = past.At.Add(-time.Hour) // its renewal was due before
	for name, c := range map[string]struct{ in, want []record.TrustReport }{
		"none":                          {nil, nil},
		"the last":                      {[]record.TrustReport{old}, []record.TrustReport{old}},
		"the last, overdue":             {[]record.TrustReport{past}, []record.TrustReport{past}},
		"a renewal":                     {[]record.TrustReport{renewal}, []record.TrustReport{renewal}},
		"the new certificate was shown": {[]record.TrustReport{renewal, next}, []record.TrustReport{next}},
		"a copy of the old certificate": {[]record.TrustReport{copied, renewal, next}, []record.TrustReport{copied, next}},
		"overdue":                       {[]record.TrustReport{old, copied, late}, []record.TrustReport{late}},
	} {
		if got := truststore.Counting(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestRetires: a version that would retire an intermediate is refused if a certificate of it was
// committed after the caller had looked, also if that one is revoked, until it has expired.
func TestRetires(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		db, err := sqldb.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		certificates, s := store.New(db), truststore.New(db)
		defer func() { _ = certificates.Close() }()
		at := time.Now().UTC().Truncate(time.Millisecond)
		change := truststore.NextVersion{
			Version: truststore.Version{Number: 1, Document: []byte("one")}, Retires: []string{"bb", "aa"}, Event: record.Event{At: at, Caller: "operator"},
		}
		if used, err := s.Unexpired(t.Context(), "aa", at); err != nil || used {
			t.Errorf("before its first certificate: %v, %v", used, err)
		}
		if _, err := certificates.Commit(t.Context(), store.Issuance{Certificate: held(at)}); err != nil {
			t.Fatal(err)
		}
		if err := s.Change(t.Context(), change); !errors.Is(err, truststore.ErrInUse) {
			t.Errorf("with a certificate: %v", err)
		}
		if err := certificates.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "1", RevokedAt: at}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Change(t.Context(), change); !errors.Is(err, truststore.ErrInUse) {
			t.Errorf("with one that is revoked, and needs a list: %v", err)
		}
		change.Event.At = at.Add(2 * time.Hour)
		if err := s.Change(t.Context(), change); err != nil {
			t.Errorf("when it has expired: %v", err)
		}
	})
}

// held is a certificate of a service, valid for an hour.
func held(at time.Time) record.Certificate {
	return record.Certificate{
		Serial: "1", Lineage: "1", Service: "storage", Kind: kinds.Issued, Issuer: "aa", KeyHash: strings.Repeat("0f", 32),
		NotBefore: at, NotAfter: at.Add(time.Hour), IssuedAt: at, DER: []byte{1}, Chain: []byte{},
	}
}
