package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// engines runs a test on both databases: what holds for one must hold for the other.
func engines(t *testing.T, test func(t *testing.T, where string)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, filepath.Join(t.TempDir(), "a b?#%.db")) // a path that is no URI
	})
	t.Run("postgres", func(t *testing.T) { test(t, postgres.Database(t)) })
}

// open opens a record, and makes its schema if there is none.
func open(t testing.TB, where string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), where)
	if errors.Is(err, store.ErrNoRecord) {
		s, err = store.Create(t.Context(), where)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
