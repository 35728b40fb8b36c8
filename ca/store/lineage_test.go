package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

// renewalOf is the n-th certificate of the tests, as a renewal in a lineage.
func renewalOf(first record.Certificate, n int) record.Certificate {
	c := storetest.Entry(n, first.Service)
	c.Kind, c.Lineage, c.Previous, c.NotAfter = kinds.Renewed, first.Lineage, first.Serial, first.NotAfter
	return c
}

// A lineage takes certificates up to the number of live ones that it may have.
func TestLineageIsFull(t *testing.T) { postgres.Engines(t, lineageIsFull) }

func lineageIsFull(t *testing.T, where string) {
	s := storetest.Open(t, where)
	first, other := storetest.Entry(20, "a"), storetest.Entry(22, "a")
	storetest.Commit(t, s, first)
	storetest.Commit(t, s, other)
	add := func(c record.Certificate, token store.Token) error {
		_, err := s.Commit(t.Context(), store.Issuance{Certificate: c, Token: token, MaxLineage: 3})
		return err
	}
	for n := 30; n < 32; n++ {
		if err := add(renewalOf(first, n), store.Token{}); err != nil {
			t.Fatal(err)
		}
	}
	token := store.Token{Hash: [32]byte{7}, Expires: storetest.Base.Add(time.Hour)}
	if err := add(renewalOf(first, 32), token); !errors.Is(err, store.ErrLineageFull) {
		t.Errorf("the fourth: %v", err)
	}
	if _, err := s.Spent(t.Context(), token, ""); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("a refused renewal has spent its token: %v", err)
	}
	if _, err := s.Get(t.Context(), "1032"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("a refused certificate is in the record: %v", err)
	}
	if err := add(renewalOf(other, 33), store.Token{}); err != nil {
		t.Errorf("another lineage of the service: %v", err)
	}
	later := renewalOf(first, 34)
	later.IssuedAt, later.NotAfter = first.NotAfter, first.NotAfter.Add(time.Hour)
	if err := add(later, token); err != nil {
		t.Errorf("when those before have expired: %v", err)
	}
	if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: first.Serial, RevokedAt: storetest.Base}}); err != nil {
		t.Fatal(err)
	}
	if err := add(renewalOf(first, 35), store.Token{}); !errors.Is(err, store.ErrRevoked) {
		t.Errorf("full and revoked: %v, want the revocation", err)
	}
}

// Callers of several processes that renew one certificate at once get no more than
// the lineage may have, and all of that.
func TestLineageIsFullAtOnce(t *testing.T) { postgres.Engines(t, lineageIsFullAtOnce) }

func lineageIsFullAtOnce(t *testing.T, where string) {
	const most, each = 50, 60
	first := storetest.Entry(20, "a")
	processes := []*store.Store{storetest.Open(t, where), storetest.Open(t, where), storetest.Open(t, where)}
	storetest.Commit(t, processes[0], first)
	var issued, full atomic.Int64
	var group sync.WaitGroup
	for p, s := range processes {
		for w := range 4 {
			group.Go(func() {
				for i := range each / 4 {
					c := renewalOf(first, 100+p*each+w*each/4+i)
					switch _, err := s.Commit(t.Context(), store.Issuance{Certificate: c, MaxLineage: most}); {
					case err == nil:
						issued.Add(1)
					case errors.Is(err, store.ErrLineageFull):
						full.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	if issued.Load() != most-1 || full.Load() != 3*each-(most-1) {
		t.Errorf("%d issued and %d refused, want %d and %d", issued.Load(), full.Load(), most-1, 3*each-(most-1))
	}
	n, err := processes[0].RevokeSet(t.Context(), record.Selection{Lineage: first.Lineage}, record.Revocation{RevokedAt: storetest.Base})
	if err != nil || n != most {
		t.Errorf("%d revoked, %v; want %d", n, err, most)
	}
}

// What each renewal asks about its lineage is a look at two indexes, whatever the
// number of certificates that have expired in it.
func TestLineageIsCountedByIndex(t *testing.T) { postgres.Engines(t, lineageIsCountedByIndex) }

func lineageIsCountedByIndex(t *testing.T, where string) {
	s := storetest.Open(t, where)
	for i := range 50 {
		storetest.Commit(t, s, storetest.Entry(i, "a"))
	}
	plan, err := s.JoinPlan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	plan = strings.ReplaceAll(plan, "SCAN counted", "") // of the rows found, fifty at most
	if found := whole.FindString(plan); found != "" || !strings.Contains(plan, "certificates_lineage") || !strings.Contains(plan, "revocations_lineage") {
		t.Errorf("%q in the plan:\n%s", found, plan)
	}
	if strings.HasPrefix(where, "postgres") {
		if !strings.Contains(plan, "Index Only Scan using certificates_lineage") {
			t.Errorf("it reads the rows:\n%s", plan)
		}
	} else if !strings.Contains(plan, "COVERING INDEX certificates_lineage (lineage=? AND not_after>?)") {
		t.Errorf("it reads the rows, or all of the lineage:\n%s", plan)
	}
}

// A record from before the ends of proofs were kept is brought up to date: nothing
// in it has one, and its log still fits.
func TestUpgradeBeforeProofs(t *testing.T) { postgres.Engines(t, upgradeBeforeProofs) }

func upgradeBeforeProofs(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(8) // the ninth would have an end
	w.Sequence()
	before := everything(t, w.Store)
	err := w.Store.Change(t.Context(), func(tx *store.Txn) (err error) { // what this migration and those behind it do, undone
		for _, text := range []string{
			`ALTER TABLE certificates DROP COLUMN proof_until`, `DROP INDEX certificates_lineage`,
			`CREATE INDEX certificates_lineage ON certificates (lineage)`,
			`DROP TABLE acme_eab_keys`, `ALTER TABLE acme_accounts DROP COLUMN eab`, `ALTER TABLE acme_orders DROP COLUMN profile`,
			`DROP TABLE trust_versions`, `DROP TABLE authorities`, `DROP TABLE trust_reports`, `DROP TABLE deliveries`, `CREATE TABLE lineages (lineage TEXT NOT NULL PRIMARY KEY, trust_digest TEXT NOT NULL, reported_at BIGINT NOT NULL)`, `INSERT INTO lineages VALUES ('1001', 'd', 5)`,
			`DROP TABLE renewal_orders`, `DROP INDEX acme_orders_replaces`, `ALTER TABLE acme_orders DROP COLUMN replaces`,
			`DROP TABLE tally_state`, `DROP TABLE tallies`, `DROP TABLE holders`, `DROP TABLE fingerprints`,
			`DELETE FROM goose_db_version WHERE version_id >= 5`,
		} {
			if err == nil {
				_, err = tx.ExecContext(t.Context(), text)
			}
		}
		return err
	})
	if err = errors.Join(err, w.Store.Close()); err != nil {
		t.Fatal(err)
	}
	w.Store = storetest.Open(t, where)
	if after := everything(t, w.Store); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the certificates changed:\n%v\n%v", before, after)
	}
	if n, err := w.Store.Trusting(t.Context()); err != nil || n != 1 {
		t.Errorf("%d reports of trust bundles, %v", n, err)
	}
	if report := w.Verify(); len(report.Findings) > 0 || report.Checked != 8 {
		t.Errorf("the log does not fit: %+v", report)
	}
	w.Issue(2)
	w.Sequence()
	page, _, err := w.Store.List(t.Context(), record.Query{})
	bounded := slices.DeleteFunc(page, func(c record.Certificate) bool { return c.ProofUntil.IsZero() })
	if err != nil || len(bounded) != 1 || bounded[0].Serial != "1009" || !bounded[0].ProofUntil.Equal(bounded[0].NotAfter) {
		t.Errorf("new certificates with the end of a proof: %+v, %v", bounded, err)
	}
	if report := w.Verify(); len(report.Findings) > 0 || report.Checked != 10 {
		t.Errorf("the log of both: %+v", report)
	}
}

// TestPruneForgetsReports: what services have reported goes with their certificates.
func TestPruneForgetsReports(t *testing.T) { postgres.Engines(t, pruneForgetsReports) }

func pruneForgetsReports(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(2)
	w.Sequence()
	for _, lineage := range []string{"1001", "1002"} {
		if err := w.Store.ReportTrust(t.Context(), record.TrustReport{Lineage: lineage, Serial: lineage, Digest: "d"}); err != nil {
			t.Fatal(err)
		}
	}
	for left := 1; left >= 0; left-- {
		if n, err := w.Store.Prune(t.Context(), "test", w.Start.AddDate(1, 0, 0), 1); err != nil || n != 1 {
			t.Fatalf("%d pruned, %v", n, err)
		}
		if n, err := w.Store.Trusting(t.Context()); err != nil || n != left {
			t.Errorf("%d reports are left, %v; want %d", n, err, left)
		}
	}
}

// Lineages with many live certificates are found in a record as it is.
func TestCrowded(t *testing.T) { postgres.Engines(t, crowded) }

func crowded(t *testing.T, where string) {
	s := storetest.Open(t, where)
	for n, renewals := range map[int]int{20: 4, 22: 2, 24: 1} {
		first := storetest.Entry(n, fmt.Sprint("service-", n))
		storetest.Commit(t, s, first)
		for i := range renewals {
			storetest.Commit(t, s, renewalOf(first, 100+10*n+i))
		}
	}
	gone := renewalOf(storetest.Entry(22, "service-22"), 999)
	gone.NotAfter = storetest.Base // expired
	storetest.Commit(t, s, gone)
	if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "1020", RevokedAt: storetest.Base}}); err != nil {
		t.Fatal(err)
	}
	got, err := store.Crowded(t.Context(), where, 3, storetest.Base)
	want := []record.LineageCount{{Service: "service-20", Lineage: "1020", Live: 4}, {Service: "service-22", Lineage: "1022", Live: 3}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := store.Crowded(t.Context(), t.TempDir()+"/absent.db", 3, storetest.Base); err == nil {
		t.Error("a record that is not there was counted")
	}
}

// TestDelivery: what is served is with its certificate until that is pruned, since the first report
// of the same servers. A report of another lineage, or of a certificate that has ended, is none.
func TestDelivery(t *testing.T) { postgres.Engines(t, delivery) }

func delivery(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(2)
	w.Sequence()
	get := func(serial string) record.Certificate {
		t.Helper()
		c, err := w.Store.Get(t.Context(), serial)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	issued := get("1001")
	at := issued.IssuedAt.Add(time.Minute)
	first := record.Delivery{Serial: "1001", Lineage: "1001", Address: "db:5432", Servers: 2, Since: at}
	again, moved, early, foreign, unknown := first, first, first, first, first
	again.Since = at.Add(time.Minute)
	moved.Address, moved.Since = "db2:5432", at.Add(time.Hour)
	early.Servers, early.Since = 3, issued.IssuedAt.Add(-time.Hour)
	foreign.Serial, unknown.Serial = "1002", "7"
	for _, step := range []struct {
		said  record.Delivery
		now   time.Time
		ok    bool
		since time.Time
		at    string
	}{
		{foreign, at, false, time.Time{}, ""}, {unknown, at, false, time.Time{}, ""},
		{first, issued.NotAfter, false, time.Time{}, ""},
		{first, at, true, at, "db:5432"}, {again, at, true, at, "db:5432"},
		{moved, at, true, moved.Since, "db2:5432"},
		{early, at, true, issued.IssuedAt, "db:5432"},
	} {
		ok, err := w.Store.ReportDelivery(t.Context(), step.said, step.now)
		if err != nil || ok != step.ok {
			t.Fatalf("%+v: %v, %v", step.said, ok, err)
		}
		got := get("1001").Served
		if (got == nil) != step.since.IsZero() || got != nil && (!got.Since.Equal(step.since) || got.Address != step.at) {
			t.Errorf("after %+v: %+v", step.said, got)
		}
	}
	if page, _, err := w.Store.List(t.Context(), record.Query{Service: issued.Service}); err != nil || len(page) != 2 || get("1002").Served != nil {
		t.Errorf("%d certificates, %v", len(page), err)
	}
	if n, err := w.Store.Prune(t.Context(), "test", w.Start.AddDate(1, 0, 0), 2); err != nil || n != 2 {
		t.Fatalf("%d pruned, %v", n, err)
	}
	if n, err := w.Store.Deliveries(t.Context()); err != nil || n != 0 {
		t.Errorf("%d deliveries are left, %v", n, err)
	}
}
