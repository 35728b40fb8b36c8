// Package damage changes a state directory behind the authority's back. Only the
// tests of the authority and of its backups import it.
package damage

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/durable"
)

// File replaces what is in a file, or makes it (0600).
func File(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, durable.Private); err != nil { //nolint:forbidigo,gosec // in a test: no crash is to be survived (forbidigo), and the path is its own (G703)
		t.Fatal(err)
	}
}

// Config appends text to the pki.yaml in dir.
func Config(t testing.TB, dir, text string) {
	t.Helper()
	path := statedir.Path(dir, statedir.ConfigFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	File(t, path, append(data, text...))
}

// Files returns the paths in dir that pattern matches. It fails the test if there are none.
func Files(t testing.TB, dir, pattern string) []string {
	t.Helper()
	out, err := filepath.Glob(statedir.Path(dir, pattern))
	if err != nil || len(out) == 0 {
		t.Fatalf("%s: %v %v", pattern, out, err)
	}
	return out
}

// SQL runs a statement on the record in dir, as another process would.
func SQL(t testing.TB, dir, text string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", statedir.Path(dir, statedir.RecordFile)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
		t.Fatal(err)
	}
}

// Issued are the rows that [Certificates] writes. They have no event, and their DER is no
// certificate.
type Issued struct {
	Service string
	Issuer  string // a subject key id under which the record has certificates already
	First   int    // serial, from which the others count up
	Count   int
}

// Certificates puts unexpired certificates into the record in dir.
func Certificates(t testing.TB, dir string, many Issued) {
	t.Helper()
	SQL(t, dir, `WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ? - 1)
		INSERT INTO certificates (serial, service, kind, provisioner, caller, lineage, previous, issuer, chain, key_hash, names, not_before, not_after, issued_at, der)
		SELECT ? + i, ?, 'issued', '', 'test', ? + i, '', (SELECT id FROM issuers WHERE key_id = ?), (SELECT MIN(id) FROM chains),
			x'00', '[]', 0, ?, 0, x'00' FROM n`,
		many.Count, many.First, many.Service, many.First, many.Issuer, time.Now().Add(time.Hour).UnixMilli())
}

// Rows reads the first column of a query, as somebody who has the file of the record does.
func Rows(t testing.TB, dir, text string) (out [][]byte) {
	t.Helper()
	db, err := sql.Open("sqlite", statedir.Path(dir, statedir.RecordFile)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var cell []byte
		if err := rows.Scan(&cell); err != nil {
			t.Fatal(err)
		}
		out = append(out, cell)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
