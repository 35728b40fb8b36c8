// Package damage changes a state directory behind the authority's back. Only the
// tests of the authority and of its backups import it.
package damage

import (
	"database/sql"
	"os"
	"testing"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/durable"
)

// File replaces what is in a file, or makes it (0600).
func File(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, durable.Private); err != nil { //nolint:forbidigo // in a test, where no crash is to be survived
		t.Fatal(err)
	}
}

// SQL runs statements on the record in dir.
func SQL(t testing.TB, dir, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", statedir.Path(dir, statedir.RecordFile))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}
