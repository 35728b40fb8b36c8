package ca_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", for statements on databases

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// lossWorld is an authority that has issued and was closed, with what is needed to
// lose its record.
type lossWorld struct {
	dir   string
	where string // place of the record
	saved string // place of its copy of yesterday
	other string // place of the record of another authority
}

// newLossWorld returns an authority whose log had 2 entries yesterday and has 5 today.
func newLossWorld(t *testing.T, pg bool) *lossWorld {
	t.Helper()
	w := &lossWorld{dir: filepath.Join(t.TempDir(), "ca")}
	otherDir, database, otherDatabase := filepath.Join(t.TempDir(), "other"), "", ""
	w.where, w.other = filepath.Join(w.dir, "pki.db"), filepath.Join(otherDir, "pki.db")
	if pg {
		database, otherDatabase = postgres.Database(t), postgres.Database(t)
		w.where, w.other = database, otherDatabase
	}
	for dir, database := range map[string]string{w.dir: database, otherDir: otherDatabase} {
		if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Database: database}); err != nil {
			t.Fatal(err)
		}
		issueOwn(t, dir, 2)
	}
	if w.saved = filepath.Join(t.TempDir(), "saved.db"); pg {
		w.saved = databaseOf(w.where) + "_saved"
		atServer(t, w.where, `CREATE DATABASE `+w.saved+` TEMPLATE `+databaseOf(w.where))
	} else {
		copyFile(t, w.where, w.saved)
	}
	issueOwn(t, w.dir, 3)
	return w
}

// issueOwn runs an authority that issues n certificates and gives them places in the
// log.
func issueOwn(t *testing.T, dir string, n int) {
	t.Helper()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := a.IssueOwn(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(a.SequenceLog(t.Context()), a.Close()); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	damage.File(t, to, data)
}

func databaseOf(where string) string {
	u, _ := url.Parse(where)
	return strings.TrimPrefix(u.Path, "/")
}

// atServer runs statements at the server of a database, outside of that database.
func atServer(t *testing.T, where string, texts ...string) {
	t.Helper()
	u, err := url.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/postgres"
	inDatabase(t, u.String(), texts...)
}

func inDatabase(t *testing.T, where string, texts ...string) {
	t.Helper()
	db, err := sql.Open("pgx", where)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, text := range texts {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// everyTable returns a statement that empties all tables except one.
func everyTable(but string) string {
	return `DO $$ DECLARE t text; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '` + but + `'
		LOOP EXECUTE 'TRUNCATE ' || t || ' CASCADE'; END LOOP; END $$`
}

type loss struct {
	name   string
	pg     bool
	lose   func(t *testing.T, w *lossWorld)
	want   error
	accept bool // the loss can be accepted as it is
}

var losses = []loss{
	{"absent", false, func(t *testing.T, w *lossWorld) {
		for _, p := range damage.Files(t, w.dir, "pki.db*") {
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}, store.ErrNoRecord, true},
	{"empty", false, func(t *testing.T, w *lossWorld) { damage.File(t, w.where, nil) }, store.ErrNoRecord, true},
	{"another authority's", false, func(t *testing.T, w *lossWorld) { copyFile(t, w.other, w.where) }, translog.ErrForeign, false},
	{"yesterday's", false, func(t *testing.T, w *lossWorld) { copyFile(t, w.saved, w.where) }, store.ErrRolledBack, true},
	{"emptied", false, func(t *testing.T, w *lossWorld) {
		damage.SQL(t, w.dir, `DELETE FROM certificate_names; DELETE FROM certificates; DELETE FROM events; DELETE FROM log_entries; DELETE FROM log_state`)
	}, store.ErrNoHead, true},
	{"yesterday's, gone on", false, func(t *testing.T, w *lossWorld) {
		copyFile(t, w.saved, w.where)
		marker := filepath.Join(w.dir, "certs", "log.head")
		today, err := os.ReadFile(marker)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(marker); err != nil { // so that the authority goes on with the old record
			t.Fatal(err)
		}
		issueOwn(t, w.dir, 6)
		damage.File(t, marker, today)
	}, store.ErrRolledBack, true},
	{"empty database", true, func(t *testing.T, w *lossWorld) {
		atServer(t, w.where, `DROP DATABASE `+databaseOf(w.where), `CREATE DATABASE `+databaseOf(w.where))
	}, store.ErrNoRecord, true},
	{"renamed", true, func(t *testing.T, w *lossWorld) {
		atServer(t, w.where, `ALTER DATABASE `+databaseOf(w.where)+` RENAME TO `+databaseOf(w.where)+`_away`)
	}, store.ErrNoRecord, false},
	{"another authority's", true, func(t *testing.T, w *lossWorld) {
		atServer(t, w.where, `DROP DATABASE `+databaseOf(w.where), `CREATE DATABASE `+databaseOf(w.where)+` TEMPLATE `+databaseOf(w.other))
	}, translog.ErrForeign, false},
	{"emptied tables", true, func(t *testing.T, w *lossWorld) { inDatabase(t, w.where, everyTable("goose_db_version")) }, store.ErrNoHead, true},
	{"all tables emptied", true, func(t *testing.T, w *lossWorld) { inDatabase(t, w.where, everyTable("")) }, store.ErrNoRecord, false},
	{"rolled back", true, func(t *testing.T, w *lossWorld) {
		atServer(t, w.where, `DROP DATABASE `+databaseOf(w.where), `CREATE DATABASE `+databaseOf(w.where)+` TEMPLATE `+w.saved)
	}, store.ErrRolledBack, true},
}

// TestLostRecord: in each case of a lost or replaced record, every way to open it is
// refused, and nothing is made. To go on without it is a decision of the operator,
// which the log has as an event.
func TestLostRecord(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, l := range losses {
		name := "sqlite/" + l.name
		if l.pg {
			name = "postgres/" + l.name
		}
		t.Run(name, func(t *testing.T) {
			w := newLossWorld(t, l.pg)
			l.lose(t, w)
			before := w.traces(t)
			w.refused(t, l.want)
			if after := w.traces(t); after != before {
				t.Errorf("something was made: %s, before: %s", after, before)
			}
			w.accepting(t, l)
		})
	}
}

// refused tries every way to open the record.
func (w *lossWorld) refused(t *testing.T, want error) {
	t.Helper()
	check := func(what string, err error) {
		t.Helper()
		lost, ok := errors.AsType[*ca.RecordError](err)
		if !errors.Is(err, want) || !ok || lost.Known.Size != 5 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := ca.Open(t.Context(), ca.Options{Dir: w.dir, Logger: slog.New(slog.DiscardHandler)})
	check("open", err)
	_, err = ca.StateDir(w.dir).OpenRecord(t.Context())
	check("the record", err)
	found, err := ca.StateDir(w.dir).FindLoss(t.Context())
	if err != nil || found == nil {
		t.Fatalf("the loss: %+v %v", found, err)
	}
	check("the loss", found.Reason)
	if report, err := ca.StateDir(w.dir).VerifyLog(t.Context(), ca.LogOptions{}); err == nil && len(report.Findings) == 0 {
		t.Error("the log verifies")
	}
	var said []string
	for _, d := range doctor.Run(t.Context(), doctor.Options{Dir: w.dir}) {
		if d.Check == "record" && d.Severity == doctor.Error {
			said = append(said, d.Text)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "restore a backup, or accept the loss") {
		t.Errorf("doctor: %q", said)
	}
}

// accepting accepts the loss, if that is possible, and issues again.
func (w *lossWorld) accepting(t *testing.T, l loss) {
	t.Helper()
	for _, entries := range []int64{0, 4, 6} {
		if _, err := ca.StateDir(w.dir).AcceptLoss(t.Context(), ca.AcceptOptions{Entries: entries}); err == nil {
			t.Errorf("a loss of %d entries was accepted", entries)
		}
	}
	head, err := ca.StateDir(w.dir).AcceptLoss(t.Context(), ca.AcceptOptions{Entries: 5})
	if (err == nil) != l.accept {
		t.Fatalf("accepting: %v", err)
	}
	if !l.accept {
		return
	}
	issueOwn(t, w.dir, 1)
	r, err := ca.StateDir(w.dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	events, err := r.Events(t.Context(), kinds.Accepted, 0, 10)
	if err != nil || len(events) != 1 || events[0].Caller != "operator" || !strings.Contains(events[0].Detail, "of 5 entries, root ") {
		t.Errorf("%+v %v", events, err)
	}
	report, err := r.VerifyLog(t.Context(), ca.LogOptions{})
	if err != nil || len(report.Findings) > 0 || report.Size != head.Size+1 {
		t.Errorf("%+v %v", report, err)
	}
	if _, err := ca.StateDir(w.dir).AcceptLoss(t.Context(), ca.AcceptOptions{Entries: head.Size + 1}); !errors.Is(err, ca.ErrNothingLost) {
		t.Errorf("again: %v", err)
	}
}

// traces returns the files of the directory, and the tables of the database with their
// rows, as text.
func (w *lossWorld) traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b.WriteString(path + " ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !sqldb.IsURL(w.where) {
		return b.String()
	}
	db, err := sql.Open("pgx", w.where)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	// The rows are counted, because the statistics of PostgreSQL are seconds late.
	rows, err := db.QueryContext(t.Context(), `SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`)
	if err != nil {
		return b.String() + "no database"
	}
	defer func() { _ = rows.Close() }() // Err returns its error
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM `+name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d,", name, n)
	}
	return b.String()
}

// TestMarker: the marker follows the log at a bounded rate, and is never ahead of it.
func TestMarker(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	if got := markerOf(t, dir); got != 0 {
		t.Errorf("init: %d", got)
	}
	var logged bytes.Buffer
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	a.MarkEvery(time.Hour)
	for i, want := range []int64{1, 1, 1} { // the first at once, the others too soon after it
		if err := errors.Join(a.IssueOwn(t.Context()), a.SequenceLog(t.Context())); err != nil {
			t.Fatal(err)
		}
		if a.Mark(t.Context()); markerOf(t, dir) != want {
			t.Errorf("after %d entries the marker is at %d, want %d", i+1, markerOf(t, dir), want)
		}
	}
	a.MarkEvery(0)
	if a.Mark(t.Context()); markerOf(t, dir) != 3 {
		t.Errorf("it does not follow: %d", markerOf(t, dir))
	}
	a.MarkEvery(time.Hour)
	if err := a.IssueOwn(t.Context()); err != nil { // which no head covers yet
		t.Fatal(err)
	}
	if err := a.Close(); err != nil || markerOf(t, dir) != 4 {
		t.Errorf("at the end: %d %v", markerOf(t, dir), err)
	}
	if strings.Contains(logged.String(), "marker") {
		t.Errorf("log: %s", logged.String())
	}
}

// TestMarkerThatCannotBeWritten: the authority goes on with an older marker; a
// directory where none can be read does not open.
func TestMarkerThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(dir, "certs", "log.head")
	var logged bytes.Buffer
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	a.MarkEvery(0)
	if err := os.Remove(marker); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(marker, 0o700); err != nil { // a rename does not replace a directory
		t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(a.IssueOwn(t.Context()), a.SequenceLog(t.Context())); err != nil {
			t.Fatal(err)
		}
		a.Mark(t.Context())
	}
	if n := strings.Count(logged.String(), "marker not written"); n != 1 {
		t.Errorf("said %d times: %s", n, logged.String())
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "reading the marker") {
		t.Errorf("opened: %v", err)
	}
}

// TestRecordVanishesUnderServe: an authority whose record vanishes answers nothing
// that the next start would not find in its record.
func TestRecordVanishesUnderServe(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for name, tc := range map[string]struct {
		pg     bool
		vanish func(t *testing.T, c *catest.CA, where string)
	}{
		"sqlite/removed": {false, func(t *testing.T, c *catest.CA, _ string) {
			for _, p := range damage.Files(t, c.Dir, "pki.db*") {
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
			}
		}},
		"sqlite/replaced": {false, func(t *testing.T, c *catest.CA, _ string) {
			other := newLossWorld(t, false)
			for _, p := range damage.Files(t, c.Dir, "pki.db-*") {
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(other.where, filepath.Join(c.Dir, "pki.db")); err != nil {
				t.Fatal(err)
			}
		}},
		"postgres/dropped": {true, func(t *testing.T, _ *catest.CA, where string) {
			atServer(t, where, `DROP DATABASE `+databaseOf(where)+` WITH (FORCE)`)
		}},
		"postgres/empty": {true, func(t *testing.T, _ *catest.CA, where string) {
			atServer(t, where, `DROP DATABASE `+databaseOf(where)+` WITH (FORCE)`, `CREATE DATABASE `+databaseOf(where))
		}},
		"postgres/emptied": {true, func(t *testing.T, c *catest.CA, where string) {
			inDatabase(t, where, everyTable("goose_db_version"))
			mustStop(t, c, store.ErrRolledBack)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			opt := catest.Options{Profiles: profiles()}
			if tc.pg {
				opt.Database = postgres.Database(t)
			}
			c := catest.Start(t, opt)
			cert := enrol(t, c, "storage", "storage")
			headOf(t, c, 2)
			tc.vanish(t, c, opt.Database)
			mustStop(t, c, nil)
			client := newClient(t, c, cert)
			for _, path := range []string{"/1.0/renew", "/1.0/sign"} {
				body := any(nil)
				if path == "/1.0/sign" {
					body = signRequest(t, c.Token(t, "storage", "storage"), newKey(t), "storage", "storage")
				}
				if status, answer := client.do("POST", path, body); status != http.StatusServiceUnavailable {
					t.Errorf("%s: %d %s", path, status, answer)
				}
			}
			if status, _ := newClient(t, c, nil).do("GET", "/1.0/revoked", nil); status != http.StatusServiceUnavailable {
				t.Errorf("lists are answered: %d", status)
			}
			if _, err := ca.StateDir(c.Dir).OpenRecord(t.Context()); err == nil {
				t.Error("the record opens")
			}
		})
	}
}

// mustStop waits until the authority is not ready, for the given reason, or for any if
// why is nil.
func mustStop(t *testing.T, c *catest.CA, why error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		err := c.Authority.Ready(t.Context())
		if err != nil && (why == nil || errors.Is(err, why)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("ready: %v", err)
		}
	}
}

// mustMark waits until the marker names that many entries. An authority that finds its
// record rolled back refuses requests first, and writes the marker after that.
func mustMark(t *testing.T, c *catest.CA, size int64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		got := markerOf(t, c.Dir)
		if got == size {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the marker names %d entries, want %d", got, size)
		}
	}
}

// markerOf returns how many entries the marker of a state directory names.
func markerOf(t *testing.T, dir string) int64 {
	t.Helper()
	v, err := ca.StateDir(dir).LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "certs", "log.head"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := v.Open(text)
	if err != nil {
		t.Fatalf("the marker: %v", err)
	}
	return h.Size
}

// TestRolledBackUnderServe: if the database of yesterday is put under a running
// authority, a certificate that was revoked since does not renew, and the marker makes
// the next start refuse the database.
func TestRolledBackUnderServe(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	database := postgres.Database(t)
	c := catest.Start(t, catest.Options{Profiles: profiles(), Database: database})
	cert := enrol(t, c, "storage", "storage")
	headOf(t, c, 2)
	name := databaseOf(database)
	dropped := `DROP DATABASE ` + name + ` WITH (FORCE)`
	// TEMPLATE needs a source without connections. The authority connects again.
	atServer(t, database, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS false`,
		`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+name+`'`)
	atServer(t, database, `CREATE DATABASE `+name+`_old TEMPLATE `+name, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS true`)
	c.Revoke(t, cert.Leaf.SerialNumber.String())
	headOf(t, c, 3)
	atServer(t, database, dropped, `CREATE DATABASE `+name+` TEMPLATE `+name+`_old`)
	mustStop(t, c, store.ErrRolledBack)
	mustMark(t, c, 3)
	if status, body := newClient(t, c, cert).do("POST", "/1.0/renew", nil); status != http.StatusServiceUnavailable {
		t.Errorf("a certificate that is revoked, which the record does not know: %d %s", status, body)
	}
	if _, err := ca.StateDir(c.Dir).OpenRecord(t.Context()); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("the record opens: %v", err)
	}
}
