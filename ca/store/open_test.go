package store_test

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/store"
)

// entrances are the ways to a record that is expected to be there.
func entrances(t *testing.T) map[string]func(where string) error {
	closed := func(s *store.Store, err error) error {
		if err == nil {
			err = s.Close()
		}
		return err
	}
	return map[string]func(where string) error{
		"open":    func(where string) error { return closed(store.Open(t.Context(), where)) },
		"inspect": func(where string) error { _, err := store.Inspect(t.Context(), where); return err },
		"snapshot": func(where string) error {
			return store.Snapshot(t.Context(), where, filepath.Join(t.TempDir(), "copy.db"))
		},
	}
}

// TestOpenMakesNothing: a place without a record stays what it is, byte by byte.
func TestOpenMakesNothing(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"absent":    func(*testing.T, string) {},
		"empty":     func(t *testing.T, path string) { write(t, path, nil) },
		"no tables": func(t *testing.T, path string) { alter(t, path, `CREATE TABLE x (y INTEGER)`, `DROP TABLE x`) },
		"others":    func(t *testing.T, path string) { alter(t, path, `CREATE TABLE x (y INTEGER)`) },
		"emptied": func(t *testing.T, path string) {
			_ = storetest.Open(t, path).Close()
			alter(t, path, `DELETE FROM goose_db_version`)
		},
	} {
		for entrance, enter := range entrances(t) {
			t.Run(name+" "+entrance, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "pki.db")
				make(t, path)
				before, _ := os.ReadFile(path)
				names := listDir(t, dir)
				if err := enter(path); !errors.Is(err, store.ErrNoRecord) || !strings.Contains(err.Error(), path) && name != "absent" && entrance == "open" {
					t.Errorf("error %v", err)
				}
				after, _ := os.ReadFile(path)
				if !bytes.Equal(before, after) || listDir(t, dir) != names {
					t.Errorf("it changed %q to %q, %d bytes to %d", names, listDir(t, dir), len(before), len(after))
				}
			})
		}
	}
}

// TestOpenMakesNothingInPostgres: neither in an empty database nor in one that
// was renamed away, nor in tables that were emptied.
func TestOpenMakesNothingInPostgres(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, where string) string{
		"empty":   func(_ *testing.T, where string) string { return where },
		"renamed": func(_ *testing.T, where string) string { return strings.Replace(where, "/test", "/away", 1) },
		"emptied": func(t *testing.T, where string) string {
			_ = storetest.Open(t, where).Close()
			alter(t, where, `DELETE FROM goose_db_version`)
			return where
		},
	} {
		for entrance, enter := range entrances(t) {
			t.Run(name+" "+entrance, func(t *testing.T) {
				server := postgres.Database(t)
				where := make(t, server)
				before := countTables(t, server)
				err := enter(where)
				if !errors.Is(err, store.ErrNoRecord) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v", err)
				}
				if after := countTables(t, server); after != before {
					t.Errorf("%d tables, were %d", after, before)
				}
			})
		}
	}
}

// TestFileThatVanishes: what is committed to a file without a name is not acknowledged.
func TestFileThatVanishes(t *testing.T) {
	for name, vanish := range map[string]func(t *testing.T, path string){
		"removed":  func(t *testing.T, path string) { remove(t, path, path+"-wal", path+"-shm") },
		"replaced": func(t *testing.T, path string) { remove(t, path); write(t, path, []byte("another")) },
		"renamed":  func(t *testing.T, path string) { rename(t, path, path+".away") },
		"its log":  func(t *testing.T, path string) { remove(t, path+"-wal") },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pki.db")
			s := storetest.Open(t, path)
			storetest.Commit(t, s, storetest.Entry(1, "a"))
			vanish(t, path)
			for range 2 { // also on a new connection
				if _, err := s.Commit(t.Context(), store.Issuance{Certificate: storetest.Entry(2, "a")}); !errors.Is(err, store.ErrRemoved) {
					t.Errorf("acknowledged: %v", err)
				}
			}
			if err := s.Ready(t.Context()); !errors.Is(err, store.ErrRemoved) || s.Intact() {
				t.Errorf("ready: %v", err)
			}
			if _, err := s.RevocationMark(t.Context()); !errors.Is(err, store.ErrRemoved) {
				t.Errorf("lists would be made: %v", err)
			}
			if name == "renamed" {
				rename(t, path+".away", path)
				if err := s.Ready(t.Context()); err != nil || !s.Intact() {
					t.Errorf("it came back: %v", err)
				}
			}
		})
	}
}

func TestName(t *testing.T) {
	for where, want := range map[string]string{
		"/var/pki.db":                     "/var/pki.db",
		"postgres://pki@127.0.0.1/record": `database "record" of 127.0.0.1`,
		"postgres://pki:x@127.0.0.1/pki":  "the database",
	} {
		if got := sqldb.Name(where); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// alter runs statements on a database behind the program's back.
func alter(t testing.TB, where string, texts ...string) {
	t.Helper()
	db := rawDB(t, where)
	defer func() { _ = db.Close() }()
	for _, text := range texts {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
}

func rawDB(t testing.TB, where string) *sql.DB {
	t.Helper()
	driver := "sqlite"
	if sqldb.IsURL(where) {
		driver = "pgx"
	}
	db, err := sql.Open(driver, where)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func countTables(t testing.TB, where string) (n int) {
	t.Helper()
	db := rawDB(t, where)
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'public'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func listDir(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
