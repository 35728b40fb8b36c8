package query_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// scan is how the databases say that they read a whole table, or sort what they have found.
var scan = regexp.MustCompile(`(?m)SCAN (certificates|c|certificate_names|n|events|e|holders|h|trust_reports|t|revocations|r|fingerprints|f|log_entries|l|tallies)\b(?: USING (?:COVERING )?INDEX \S+)?$|TEMP B-TREE|Seq Scan on|Sort`)

// planner is a Querier that asks for the plan of each query, and then runs it.
type planner struct {
	sqldb.Querier
	t        *testing.T
	tx       sqldb.Querier // for PostgreSQL, without the plans that small tables would get
	postgres bool
	seen     map[string]bool
}

func (p *planner) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	p.explain(ctx, text, args...)
	return p.Querier.QueryContext(ctx, text, args...)
}

func (p *planner) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	p.explain(ctx, text, args...)
	return p.Querier.QueryRowContext(ctx, text, args...)
}

func (p *planner) explain(ctx context.Context, text string, args ...any) {
	if p.seen[text] {
		return
	}
	p.seen[text] = true
	head, width := `EXPLAIN QUERY PLAN `, 4
	if p.postgres {
		head, width = `EXPLAIN `, 1
	}
	rows, err := p.tx.QueryContext(ctx, head+text, args...)
	if err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
	steps, err := sqldb.Collect(rows, func(s *string) error {
		into := []any{new(any), new(any), new(any), s}
		return rows.Scan(into[4-width:]...)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	plan := strings.Join(steps, "\n")
	// What is ordered by a key and has a limit reads no more than the page: the first pages of lists.
	limited := regexp.MustCompile(`ORDER BY \S+ DESC LIMIT \?$`).MatchString(text) && !strings.Contains(text, " WHERE ")
	if found := scan.FindString(plan); found != "" && !limited {
		p.t.Errorf("%s in the plan of %s:\n%s", found, text, plan)
	}
}

// world is a record with some of everything.
type world struct {
	*storetest.Log
	db   *sqldb.DB
	now  time.Time
	made []record.Certificate
}

func newWorld(t *testing.T, where string, lineages int) *world {
	t.Helper()
	db, err := sqldb.Create(t.Context(), where)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	w := &world{Log: storetest.NewLog(t, where), db: db, now: time.Now().Truncate(time.Millisecond)}
	for i := range lineages {
		c := storetest.Entry(i, fmt.Sprintf("service-%d", i%3))
		c.NotBefore, c.NotAfter, c.IssuedAt = w.now.Add(-time.Hour), w.now.Add(time.Duration(1+i)*time.Hour), w.now.Add(-time.Hour)
		c.DER = []byte(c.Serial)
		storetest.Commit(t, w.Store, c)
		w.made = append(w.made, c)
	}
	must(t, w.Store.Refuse(t.Context(), record.Event{At: w.now, Kind: kinds.Refused, Caller: "x", Rule: "names"}))
	must(t, w.Store.Refuse(t.Context(), record.Event{At: w.now, Kind: kinds.Refused, Caller: "x", Rule: "profile"}))
	must(t, w.Store.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: w.made[0].Serial, RevokedAt: w.now, Note: "lost", Caller: "operator"}}))
	w.fold(t)
	return w
}

func (w *world) fold(t *testing.T) {
	t.Helper()
	w.Sequence()
	for more := true; more; {
		var err error
		if more, err = tally.New(w.db).Fold(t.Context(), w.now); err != nil {
			t.Fatal(err)
		}
	}
}

// ask calls everything that asks the database.
func ask(ctx context.Context, d *query.DB, w *world) error {
	var errs []error
	note := func(err error) {
		if err != nil && !errors.Is(err, record.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	_, err := d.Counts(ctx, w.now)
	note(err)
	for _, show := range []string{query.Live, query.Overdue, query.Ended, query.Revoked, query.Replaced, query.Silent} {
		for _, service := range []string{"", "service-1"} {
			for _, after := range []string{"", "5.1001"} {
				_, _, err := d.Holders(ctx, query.HolderFilter{Show: show, Service: service, Now: w.now, Cursor: after})
				note(err)
			}
		}
	}
	_, err = d.Rules(ctx)
	note(err)
	_, err = d.Certificate(ctx, w.made[1].Serial)
	note(err)
	_, err = d.ByFingerprint(ctx, strings.Repeat("0f", 32))
	note(err)
	_, _, err = d.Lineage(ctx, w.made[1].Lineage)
	note(err)
	_, err = d.EventsOf(ctx, w.made[1].Serial)
	note(err)
	for _, after := range []string{"", "5."} {
		for _, kind := range []string{"", kinds.Refused} {
			_, _, err = d.Events(ctx, kind, after)
			note(err)
		}
		_, _, err = d.Revocations(ctx, after)
		note(err)
	}
	_, err = d.Issuers(ctx, w.now)
	note(err)
	_, err = d.Own(ctx)
	note(err)
	_, err = d.Authority(ctx, "00")
	note(err)
	for _, bundles := range [][]string{{"bb"}, {"aa", "cc"}} {
		_, _, err = d.Lagging(ctx, bundles, w.now)
		note(err)
	}
	return errors.Join(errs...)
}

// TestNoScans asks both databases how they find what each query asks for.
func TestNoScans(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where, 50)
		must(t, w.db.Snapshot(t.Context(), func(tx sqldb.Querier) error {
			if w.db.Postgres() {
				rows, err := tx.QueryContext(t.Context(), `SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_sort', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_material', 'enable_incremental_sort']) name`)
				if err != nil {
					return err
				}
				must(t, rows.Close())
			}
			p := &planner{Querier: w.db.Read, t: t, tx: tx, postgres: w.db.Postgres(), seen: map[string]bool{}}
			if err := ask(t.Context(), query.New(p, 10), w); err != nil {
				return err
			}
			if len(p.seen) < 30 {
				t.Errorf("only %d statements were asked", len(p.seen))
			}
			return nil
		}))
	})
}

// TestHolderPages reads lists page by page, and expects each lineage once and in order.
func TestHolderPages(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where, 30)
		w.now = w.now.Add(10*time.Hour + time.Minute) // the first ten have ended
		w.fold(t)
		d := query.New(w.db.Read, 4)
		for show, want := range map[string]int{query.Live: 20, query.Ended: 9, query.Revoked: 1, query.Replaced: 0, query.Silent: 20} {
			var serials []string
			after := ""
			for {
				list, next, err := d.Holders(t.Context(), query.HolderFilter{Show: show, Now: w.now, Cursor: after})
				must(t, err)
				for _, h := range list {
					serials = append(serials, h.Serial)
				}
				if after = next; next == "" {
					break
				}
			}
			sorted := slices.Compact(slices.Sorted(slices.Values(serials)))
			if len(serials) != want || len(sorted) != want {
				t.Errorf("%s: %d lineages, %d of them different, want %d", show, len(serials), len(sorted), want)
			}
		}
		list, _, err := d.WithLimit(100).Holders(t.Context(), query.HolderFilter{Service: "service-2", Now: w.now})
		must(t, err)
		for _, h := range list {
			if h.Service != "service-2" || h.NotAfter.Before(w.now) {
				t.Errorf("%+v", h)
			}
		}
		n, err := d.Counts(t.Context(), w.now)
		must(t, err)
		if n.Live != 20 || n.Lapsed != 9 || n.Behind != 0 || n.Pending != 0 || n.Ends[1] != 1 {
			t.Errorf("%+v", n)
		}
		rules, err := d.Rules(t.Context())
		if must(t, err); !slices.Equal(rules, []string{"names", "profile"}) {
			t.Errorf("%v", rules)
		}
	})
}

// TestByFingerprint finds a certificate by the hash of its bytes, and no other one by the same first bytes.
func TestByFingerprint(t *testing.T) {
	w := newWorld(t, filepath.Join(t.TempDir(), "pki.db"), 3)
	d, c := query.New(w.db.Read, 4), w.made[1]
	whole := certs.KeyHash(c.DER) // a SHA-256, as that of a fingerprint
	if serial, err := d.ByFingerprint(t.Context(), whole); err != nil || serial != c.Serial {
		t.Errorf("%s %v", serial, err)
	}
	for _, other := range []string{whole[:62] + "00", strings.Repeat("0", 64), "", "x"} {
		if serial, err := d.ByFingerprint(t.Context(), other); err == nil {
			t.Errorf("%q found %s", other, serial)
		}
	}
}

// TestLagging has holders with the bundle, with another one, and without a report.
func TestLagging(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where, 6)
		for i, digest := range map[int]string{1: "aa", 2: "bb", 3: "cc", 4: "dd"} {
			_, err := w.Store.Commit(t.Context(), store.Issuance{Certificate: renewed(w.made[i], w.now), Report: record.TrustReport{Digest: digest, Reporter: "r", At: w.now, Due: w.now.Add(time.Hour)}})
			must(t, err)
		}
		w.fold(t)
		held, more, err := query.New(w.db.Read, 4).Lagging(t.Context(), []string{"dd", "bb"}, w.now)
		must(t, err)
		var found []string
		for _, h := range held {
			if !slices.Contains(found, h.Lineage) {
				found = append(found, h.Lineage)
			}
		}
		if want := []string{w.made[1].Lineage, w.made[3].Lineage, w.made[5].Lineage}; !slices.Equal(found, want) || more {
			t.Errorf("%v, want %v", found, want)
		}
	})
}

func renewed(c record.Certificate, now time.Time) record.Certificate {
	c.Previous, c.Serial, c.Kind = c.Serial, "9"+c.Serial, kinds.Renewed
	c.KeyHash, c.DER = certs.KeyHash([]byte(c.Serial)), []byte(c.Serial)
	c.IssuedAt = now
	return c
}

// FuzzCursor has as its contract that any text is refused as a cursor or selects a page, and that no
// text changes the statement.
func FuzzCursor(f *testing.F) {
	for _, seed := range []string{"", "5.1001", "5.", ".", "-1.0", "9223372036854775808.1", "1.1 OR 1=1", "1.'; DROP TABLE holders; --", "1.\x00"} {
		f.Add(seed)
	}
	db, err := sqldb.Create(context.Background(), filepath.Join(f.TempDir(), "pki.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = db.Close() })
	d := query.New(db.Read, 4)
	f.Fuzz(func(t *testing.T, after string) {
		for _, show := range []string{query.Live, query.Overdue, query.Ended, query.Silent, after} {
			if _, _, err := d.Holders(t.Context(), query.HolderFilter{Show: show, Cursor: after}); err != nil && !errors.Is(err, query.ErrCursor) {
				t.Errorf("%q: %v", after, err)
			}
		}
		if _, _, err := d.Events(t.Context(), "", after); err != nil && !errors.Is(err, query.ErrCursor) {
			t.Errorf("%q: %v", after, err)
		}
		if _, _, err := d.Revocations(t.Context(), after); err != nil && !errors.Is(err, query.ErrCursor) {
			t.Errorf("%q: %v", after, err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
