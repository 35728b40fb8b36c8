package store_test

import (
	"encoding/pem"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/store"
)

// TestCheck: a URL tells no secret, and the network sees the record only if
// somebody wrote that it may.
func TestCheck(t *testing.T) {
	t.Setenv("PGPASSWORD", "") // what a developer's shell may have
	t.Setenv("PGSSLMODE", "prefer")
	roots := filepath.Join(t.TempDir(), "roots.crt")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chainFor(t, 1).Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	const verify = "want verify-full, or disable"
	for where, want := range map[string]string{
		"":                                                                       "",
		"/var/lib/pki/pki.db":                                                    "",
		"relative?sslmode=require":                                               "",
		"postgres://pki@/pki?host=/run/pg":                                       "",
		"postgresql://pki@localhost/pki":                                         "",
		"postgres://pki@127.0.0.1:5433/pki":                                      "",
		"postgres://pki@[::1]/pki":                                               "",
		"postgres://pki@db/pki":                                                  "needs sslmode=verify-full and sslrootcert=FILE",
		"postgres://pki@localhost,db/pki":                                        "needs sslmode=verify-full",
		"postgres://pki@localhost/p?host=db":                                     "needs sslmode=verify-full",
		"postgres://pki@10.0.0.1/pki":                                            "needs sslmode=verify-full",
		"postgres://pki@db/pki?sslmode=disable":                                  "",
		"postgres://pki@db/pki?sslmode=require":                                  verify,
		"postgres://pki@db/pki?sslmode=prefer":                                   verify,
		"postgres://pki@db/pki?sslmode=verify-ca&sslrootcert=" + roots:           verify,
		"postgres://pki@db/pki?sslmode=verify-full":                              "needs sslrootcert=FILE",
		"postgres://pki@db/pki?sslmode=verify-full&sslrootcert=system":           "roots of the system",
		"postgres://pki@db/pki?sslmode=verify-full&sslrootcert=" + roots:         "",
		"postgres://pki@db/pki?sslmode=verify-full&sslrootcert=" + roots + ".no": "no such file",
		"postgres://pki:opensesame@localhost/pki":                                "a password in it",
		"postgres://pki@localhost/pki?password=opensesame":                       "a password in it",
		"postgres://pki@localhost/pki?sslpassword=opensesame":                    "a password in it",
		"postgres://pki:opensesame@local host/pki":                               "not a URL",
		"postgres://pki@localhost/pki?connect_timeout=soon":                      "invalid connect_timeout",
	} {
		err := store.Check(where)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", where, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v; want %q", where, err, want)
		case err != nil && strings.Contains(err.Error(), "opensesame"):
			t.Errorf("%s: the error repeats a secret: %v", where, err)
		}
	}
}

// FuzzCheck: no URL with a password is accepted, whatever its form, and none of
// another machine without a word about TLS.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"postgres://a:b@c/d", "postgres://a@localhost/d?password=x", "postgres://a@c/d?sslmode=disable", "postgresql://[::1]:1,b:2/d", "postgres://%2Frun/d", "postgres:///?host=a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, where string) {
		if !sqldb.IsURL(where) || store.Check(where) != nil {
			return
		}
		u, err := url.Parse(where)
		if err != nil {
			t.Fatalf("%q: %v", where, err)
		}
		if _, has := u.User.Password(); has || u.Query().Has("password") {
			t.Fatalf("%q has a password", where)
		}
		if mode := u.Query().Get("sslmode"); mode != "" && mode != "disable" && mode != "verify-full" {
			t.Fatalf("%q: mode %q", where, mode)
		}
	})
}

// TestStartingTogether: processes that begin on a new database at the same moment
// make one schema.
func TestStartingTogether(t *testing.T) { postgres.Engines(t, startingTogether) }

func startingTogether(t *testing.T, where string) {
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			s, err := store.Create(t.Context(), where)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = s.Close() })
			if err := s.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestNewerSchema: a program does not run on what a later one has made.
func TestNewerSchema(t *testing.T) { postgres.Engines(t, newerSchema) }

func newerSchema(t *testing.T, where string) {
	s := storetest.Open(t, where)
	err := s.Change(t.Context(), func(tx *store.Txn) error {
		_, err := tx.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, ?)`, 99999, true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), where); err == nil || !strings.Contains(err.Error(), "schema version 99999 is newer") {
		t.Error(err)
	}
}

// TestConflictIsTriedAgain: a transaction that the server ends in favour of
// another is begun anew, a few times; other errors are not.
func TestConflictIsTriedAgain(t *testing.T) {
	s := storetest.Open(t, postgres.Database(t))
	for code, want := range map[string]int{"40001": 5, "40P01": 5, "23505": 1} {
		tries := 0
		err := s.Change(t.Context(), func(*store.Txn) error {
			tries++
			return &pgconn.PgError{Code: code}
		})
		if _, ok := errors.AsType[*pgconn.PgError](err); !ok || tries != want {
			t.Errorf("%s: tried %d times, then %v", code, tries, err)
		}
	}
	tries := 0
	if err := s.Change(t.Context(), func(*store.Txn) error {
		if tries++; tries < 3 {
			return &pgconn.PgError{Code: "40001"}
		}
		return nil
	}); err != nil || tries != 3 {
		t.Errorf("tried %d times, then %v", tries, err)
	}
}

// TestSession: what a connection promises does not depend on the server's defaults.
func TestSession(t *testing.T) {
	where := postgres.Database(t)
	set := storetest.Open(t, where)
	name := where[strings.LastIndex(where, "/")+1 : strings.Index(where, "?")]
	if err := set.Change(t.Context(), func(tx *store.Txn) error {
		_, err := tx.ExecContext(t.Context(), `ALTER DATABASE `+name+` SET synchronous_commit = off`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t, where)
	for setting, want := range map[string]string{"synchronous_commit": "on", "idle_in_transaction_session_timeout": "1min"} {
		var got string
		err := s.Change(t.Context(), func(tx *store.Txn) error {
			return tx.QueryRowContext(t.Context(), `SELECT current_setting(?)`, setting).Scan(&got)
		})
		if err != nil || got != want {
			t.Errorf("%s is %q, %v", setting, got, err)
		}
	}
}

// TestServerAway: a server that is not there is an error that names database and host, soon.
func TestServerAway(t *testing.T) {
	began := time.Now()
	_, err := store.Open(t.Context(), "postgres://pki@/pki?host="+t.TempDir())
	if err == nil || !strings.Contains(err.Error(), `database "pki"`) || time.Since(began) > time.Minute {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
