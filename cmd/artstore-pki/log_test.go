package main

import (
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite", to tamper with

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// TestLogVerifyNames runs the command over a record that was changed without the program.
func TestLogVerifyNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("one is enough")
	if err := a.Watch(t.Context(), func(ca.ServerIdentity) error { return enough }); !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), `UPDATE certificates SET issued_at = issued_at - 86400000`); err != nil {
		t.Fatal(err)
	}
	day := time.Now().Format(time.DateOnly)
	code, out, errs := call(t, "artstore-pki", "log", "verify", "--dir", dir)
	if code != ui.ExitFindings || !strings.HasPrefix(out, "backdated: issued_at") && !strings.HasPrefix(out, "backdated: own ca ") || !strings.Contains(out, "issued_at was "+day[:4]) {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	code, out, _ = call(t, "artstore-pki", "log", "verify", "--dir", dir, "-o", "json")
	if code != ui.ExitFindings || !strings.Contains(out, `"fault": "backdated"`) || !strings.Contains(out, `"kind": "own"`) {
		t.Errorf("status %d, %q", code, out)
	}
}
