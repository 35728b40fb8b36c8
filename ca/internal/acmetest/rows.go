package acmetest

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
)

// CountRows counts the rows of tables in the SQLite record of a state directory, past all
// code of ours.
func CountRows(t testing.TB, dir string, tables ...string) int {
	t.Helper()
	n, err := RowCounter(t, dir, tables...)()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// RowCounter returns a function that counts as [CountRows] does, over one connection. The
// function outlives the context of t, so that a fuzz target can call it for each input.
func RowCounter(t testing.TB, dir string, tables ...string) func() (int, error) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	text := countText(tables)
	ctx := context.WithoutCancel(t.Context())
	return func() (n int, err error) {
		err = db.QueryRowContext(ctx, text).Scan(&n)
		return n, err
	}
}

// countText returns the query for the sum of the rows of tables.
func countText(tables []string) string {
	return `SELECT (SELECT count(*) FROM ` + strings.Join(tables, `) + (SELECT count(*) FROM `) + `)`
}
