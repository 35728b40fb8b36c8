package tally_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// world is a record that a test drives, by a clock of its own.
type world struct {
	*storetest.Log
	t      *testing.T
	db     *sqldb.DB
	tally  *tally.Tally
	now    time.Time
	serial int
	newest []record.Certificate // of each lineage
}

func newWorld(t *testing.T, where string) *world {
	db, err := sqldb.Create(t.Context(), where)
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return &world{Log: storetest.NewLog(t, where), t: t, db: db, tally: tally.New(db), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// issue commits a certificate that lives for a time; of a lineage, if it renews one.
func (w *world) issue(renews *record.Certificate, life time.Duration, change func(*record.Certificate)) record.Certificate {
	w.t.Helper()
	w.serial++
	serial := fmt.Sprint(5000 + w.serial)
	c := record.Certificate{
		Serial: serial, Lineage: serial, Service: fmt.Sprintf("service-%d", w.serial%3), Kind: kinds.Issued, Caller: "token", Issuer: "aa", KeyHash: certs.KeyHash([]byte(serial)),
		Names: []string{"n" + serial}, NotBefore: w.now.Add(-lifetime.Backdate(life)), NotAfter: w.now.Add(life), IssuedAt: w.now, DER: []byte(serial), Chain: []byte{1},
	}
	if renews != nil {
		c.Lineage, c.Previous, c.Kind, c.Service, c.Names = renews.Lineage, renews.Serial, kinds.Renewed, renews.Service, renews.Names
	}
	if change != nil {
		change(&c)
	}
	storetest.Commit(w.t, w.Store, c)
	return c
}

func (w *world) fold() {
	w.t.Helper()
	for more := true; more; {
		var err error
		if more, err = w.tally.Fold(w.t.Context(), w.now); err != nil {
			w.t.Fatal(err)
		}
	}
}

// counts returns the table of numbers.
func (w *world) counts() map[string]int64 {
	w.t.Helper()
	out := map[string]int64{}
	for _, r := range w.rows(`SELECT what, hour, n FROM tallies`, 3) {
		out[fmt.Sprintf("%v@%v", r[0], r[1])] = r[2].(int64)
	}
	return out
}

func (w *world) rows(text string, width int) (out [][]any) {
	w.t.Helper()
	rows, err := w.db.Read.QueryContext(w.t.Context(), text)
	must(w.t, err)
	out, err = sqldb.Collect(rows, func(r *[]any) error {
		*r = make([]any, width)
		into := make([]any, width)
		for i := range into {
			into[i] = &(*r)[i]
		}
		return rows.Scan(into...)
	})
	must(w.t, err)
	return out
}

// check compares the tables with what a count of all rows gives.
func (w *world) check() {
	w.t.Helper()
	want := map[string]int64{}
	for _, r := range w.rows(`SELECT kind, rule, at FROM events`, 3) {
		hour := tally.Hour(r[2].(int64))
		want[fmt.Sprintf("event %v@%d", r[0], hour)]++
		if r[0] == kinds.Refused {
			want[fmt.Sprintf("refused %v@%d", r[1], hour)]++
		}
	}
	type line struct {
		certificate, notAfter int64
		state                 tally.State
	}
	newest := map[string]line{}
	ended := map[string][2]int64{} // hours of the live ones
	for _, r := range w.rows(`SELECT c.lineage, c.id, c.not_before, c.not_after, CASE WHEN EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id) THEN 1 ELSE 0 END
		FROM certificates c WHERE c.kind NOT IN ('own', 'entered') ORDER BY c.id`, 5) {
		from, to := sqldb.FromMillis(r[2].(int64)), sqldb.FromMillis(r[3].(int64))
		l := line{r[1].(int64), r[3].(int64), tally.Live}
		switch {
		case r[4].(int64) == 1:
			l.state = tally.Revoked
		case !w.now.Before(to):
			l.state = tally.Ended
		}
		lineage := r[0].(string)
		newest[lineage] = l
		delete(ended, lineage)
		if l.state == tally.Live {
			_, due := lifetime.RenewalWindow(from, to)
			ended[lineage] = [2]int64{tally.Hour(sqldb.Millis(to)), tally.Hour(sqldb.Millis(due))}
		}
	}
	for _, hours := range ended {
		want[fmt.Sprintf("end@%d", hours[0])]++
		want[fmt.Sprintf("due@%d", hours[1])]++
	}
	got := w.counts()
	for key, n := range got {
		if counted := strings.HasPrefix(key, "event") || strings.HasPrefix(key, "refused"); n != want[key] && (!counted || n < want[key]) { // what was pruned stays counted
			w.t.Errorf("%s: %d, want %d", key, n, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		w.t.Errorf("not counted: %v", want)
	}
	held := map[string]line{}
	for _, r := range w.rows(`SELECT lineage, certificate, not_after, state FROM holders`, 4) {
		held[r[0].(string)] = line{r[1].(int64), r[2].(int64), tally.State(r[3].(int64))}
	}
	if !maps.Equal(held, newest) {
		w.t.Errorf("lineages %v, want %v", held, newest)
	}
	var marks []int64
	for _, r := range w.rows(`SELECT der FROM certificates`, 1) {
		marks = append(marks, tally.Prefix(sha256.Sum256(r[0].([]byte))))
	}
	var found []int64
	for _, r := range w.rows(`SELECT prefix FROM fingerprints`, 1) {
		found = append(found, r[0].(int64))
	}
	slices.Sort(marks)
	slices.Sort(found)
	if !slices.Equal(found, marks) {
		w.t.Errorf("%d fingerprints of %d", len(found), len(marks))
	}
}

// TestFoldFollowsTheRecord runs a random history, folds it in random steps, and compares with a count
// of all rows.
func TestFoldFollowsTheRecord(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r, w := rand.New(rand.NewPCG(seed, 1)), newWorld(t, where)
		for range 150 {
			w.now = w.now.Add(time.Duration(r.IntN(90)) * time.Minute)
			switch n := r.IntN(20); {
			case n < 6 || len(w.newest) == 0:
				w.newest = append(w.newest, w.issue(nil, time.Duration(1+r.IntN(48))*time.Hour, nil))
			case n < 13:
				at := r.IntN(len(w.newest))
				if gone, err := w.Store.LineageRevoked(t.Context(), w.newest[at].Lineage); err == nil && !gone {
					w.newest[at] = w.issue(&w.newest[at], time.Duration(1+r.IntN(48))*time.Hour, nil)
				}
			case n < 15:
				c := w.newest[r.IntN(len(w.newest))]
				err := w.Store.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: c.Serial, RevokedAt: w.now, Caller: "operator"}})
				if err != nil && !errors.Is(err, store.ErrAlreadyRevoked) && !errors.Is(err, record.ErrNotFound) {
					t.Fatal(err)
				}
			case n < 16:
				w.issue(nil, time.Hour, func(c *record.Certificate) { c.Kind = kinds.SelfIssued })
			case n < 17:
				must(t, w.Store.Refuse(t.Context(), record.Event{At: w.now, Kind: kinds.Refused, Caller: "x", Rule: []string{"names", "profile"}[r.IntN(2)]}))
			case n < 18:
				w.Sequence()
				if _, err := w.Store.Prune(t.Context(), "operator", w.now.Add(-72*time.Hour), 500); err != nil {
					t.Fatal(err)
				}
				w.newest = slices.DeleteFunc(w.newest, func(c record.Certificate) bool {
					_, err := w.Store.Get(t.Context(), c.Serial)
					return errors.Is(err, record.ErrNotFound)
				})
			default:
				w.Sequence()
				w.fold()
				w.check()
			}
		}
		w.Sequence()
		w.fold()
		w.check()
		again := w.counts()
		w.fold()
		if !maps.Equal(w.counts(), again) {
			t.Error("folding with nothing to do changes the counts")
		}
	})
}

// TestFoldIsCountedOnce cancels and repeats steps, and expects that each entry is counted once.
func TestFoldIsCountedOnce(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where)
		for range 520 { // two steps
			w.issue(nil, time.Hour, nil)
		}
		w.Sequence()
		for more := true; more; {
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := w.tally.Fold(ended, w.now); err == nil {
				t.Fatal("a step whose context has ended was taken")
			}
			var err error
			more, err = w.tally.Fold(t.Context(), w.now)
			must(t, err)
		}
		w.check()
		w.now = w.now.Add(2 * time.Hour) // and two steps until all are over
		w.fold()
		w.check()
	})
}

// TestFoldOfTwo lets several processes fold one record at the same time.
func TestFoldOfTwo(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where)
		for range 520 {
			w.issue(nil, time.Hour, nil)
		}
		w.Sequence()
		var group sync.WaitGroup
		for range 3 {
			db, err := sqldb.Open(t.Context(), where)
			must(t, err)
			t.Cleanup(func() { _ = db.Close() })
			group.Go(func() {
				for more := true; more; {
					if more, err = tally.New(db).Fold(t.Context(), w.now); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		w.check()
	})
}

// TestFoldOfWhatIsGone removes rows behind the program's back. The log shows that, and Fold goes on
// with the rest.
func TestFoldOfWhatIsGone(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where)
		first, second := w.issue(nil, time.Hour, nil), w.issue(nil, time.Hour, nil)
		third := w.issue(nil, time.Hour, nil)
		w.Sequence()
		w.Tamper(fmt.Sprintf(`DELETE FROM events WHERE serial = '%s'; DELETE FROM certificate_names WHERE name = 'n%s'; DELETE FROM certificates WHERE serial = '%s'`, first.Serial, second.Serial, second.Serial))
		w.fold()
		if behind, err := tally.Behind(t.Context(), w.db.Read); err != nil || behind != 0 {
			t.Errorf("%d entries left, %v", behind, err)
		}
		if held := w.rows(`SELECT lineage FROM holders`, 1); len(held) != 1 || held[0][0] != third.Lineage {
			t.Errorf("lineages %v", held)
		}
	})
}

// TestReplacedByACME orders again with the same account and the same names, with other names, and by
// another account: the first takes the place of the certificate before.
func TestReplacedByACME(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where)
		order := func(account, name string) func(*record.Certificate) {
			return func(c *record.Certificate) {
				c.Caller, c.Names, c.Service = "acme "+account, []string{name, "www." + name}, "web"
			}
		}
		before := w.issue(nil, time.Hour, order("a", "one"))
		other, foreign := w.issue(nil, time.Hour, order("a", "two")), w.issue(nil, time.Hour, order("b", "one"))
		after := w.issue(nil, time.Hour, order("a", "one"))
		w.Sequence()
		w.fold()
		states := map[string]tally.State{}
		for _, r := range w.rows(`SELECT lineage, state FROM holders`, 2) {
			states[r[0].(string)] = tally.State(r[1].(int64))
		}
		if want := map[string]tally.State{before.Lineage: tally.Replaced, other.Lineage: tally.Live, foreign.Lineage: tally.Live, after.Lineage: tally.Live}; !maps.Equal(states, want) {
			t.Errorf("%v, want %v", states, want)
		}
	})
}

// TestReported notes the first report of a lineage, whether it comes before its row or after it.
func TestReported(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		w := newWorld(t, where)
		early, late, silent := w.issue(nil, time.Hour, nil), w.issue(nil, time.Hour, nil), w.issue(nil, time.Hour, nil)
		report := func(c record.Certificate) {
			must(t, w.db.Change(t.Context(), func(tx *sqldb.Txn) error {
				return truststore.WriteReport(t.Context(), tx, record.TrustReport{Lineage: c.Lineage, Serial: c.Serial, Digest: "d", Reporter: "r", At: w.now, Due: w.now.Add(time.Hour)})
			}))
		}
		report(early)
		w.Sequence()
		w.fold()
		report(late)
		if left := w.rows(`SELECT lineage FROM holders WHERE state = 0 AND reported = 0`, 1); len(left) != 1 || left[0][0] != silent.Lineage {
			t.Errorf("%v have not reported", left)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
