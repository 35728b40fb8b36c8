//go:build unix

package pgtest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/artstore/artstore-pki/internal/pgtest"
)

// TestDatabases: each is empty and one's own, and with the server they go.
func TestDatabases(t *testing.T) {
	var server pgtest.Server
	server.Stop() // nothing runs
	one, other := server.Database(t), server.Database(t)
	for _, url := range []string{one, other} {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `CREATE TABLE here (id int)`); err != nil {
			t.Error(err)
		}
		_ = conn.Close(t.Context())
	}
	server.Stop()
	if conn, err := pgx.Connect(t.Context(), one); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the server is still there")
	}
}

// TestServerThatEnds is a failure of the machine's PostgreSQL, not a reason to skip.
func TestServerThatEnds(t *testing.T) {
	server := pgtest.Server{Settings: []string{"no_such_setting=1"}}
	defer server.Stop()
	said := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		server.Start(said)
	}()
	if !strings.Contains(said.fatal, "no_such_setting") {
		t.Errorf("said %q", said.fatal)
	}
}

// recorder takes the end of a test instead of ending this one.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Fatal(args ...any) { r.fatal = fmt.Sprint(args...); panic(r.fatal) }

func (r *recorder) Skip(args ...any) { r.TB.Skip(args...) }
