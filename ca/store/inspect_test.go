package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
)

// A record is looked at as it is, by the side of who writes it, and never made.
func TestInspect(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := storetest.Open(t, where)
		in, err := store.Inspect(t.Context(), where)
		if err != nil || in.Schema != in.Known || in.Known < 4 || in.Rows != 0 || !in.Newest.IsZero() || len(in.Problems) != 0 {
			t.Errorf("empty: %+v %v", in, err)
		}
		c := storetest.Entry(1, "a")
		c.IssuedAt = storetest.Base.Add(time.Minute)
		storetest.Commit(t, s, c)
		storetest.Commit(t, s, storetest.Entry(2, "a"))
		if in, err := store.Inspect(t.Context(), where); err != nil || in.Rows != 2 || !in.Newest.Equal(storetest.Base.Add(time.Minute)) {
			t.Errorf("%+v %v", in, err)
		}
	})
	absent := filepath.Join(t.TempDir(), "absent.db")
	if _, err := store.Inspect(t.Context(), absent); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := os.Stat(absent); !errors.Is(err, os.ErrNotExist) {
		t.Error("a record was made")
	}
	if _, err := store.Inspect(t.Context(), "postgres://127.0.0.1:1/none"); err == nil {
		t.Error("a server that is not there was inspected")
	}
}

// A snapshot is what was committed at one moment, and a record by itself.
func TestSnapshot(t *testing.T) { postgres.Engines(t, snapshot) }

func snapshot(t *testing.T, where string) {
	dir := t.TempDir()
	to := filepath.Join(dir, "copy ' of.db")
	s := storetest.Open(t, where)
	storetest.Commit(t, s, storetest.Entry(1, "a"))
	if err := store.Snapshot(t.Context(), where, to); err != nil {
		t.Fatal(err)
	}
	storetest.Commit(t, s, storetest.Entry(2, "a"))
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	copied := storetest.Open(t, to)
	if list, _, err := copied.List(t.Context(), record.Query{}); err != nil || len(list) != 1 || list[0].Serial != "1001" {
		t.Errorf("%+v %v", list, err)
	}
	if err := store.Snapshot(t.Context(), where, to); err == nil {
		t.Error("a record was overwritten")
	}
	if err := store.Snapshot(t.Context(), filepath.Join(dir, "absent"), filepath.Join(dir, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if err := store.Snapshot(t.Context(), "postgres://127.0.0.1:1/none", filepath.Join(dir, "x")); err == nil {
		t.Error("a server that is not there was copied")
	}
}

func TestPrunable(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := storetest.Open(t, where)
		storetest.Commit(t, s, storetest.Entry(1, "a"))
		storetest.Commit(t, s, storetest.Entry(2, "a")) // ends at base+1h
		living := inService(3, "a", "1001")
		storetest.Commit(t, s, living)
		for before, want := range map[time.Duration]int{0: 0, 2 * time.Hour: 1, 200 * time.Hour: 3} {
			if n, err := s.Prunable(t.Context(), storetest.Base.Add(before)); err != nil || n != want {
				t.Errorf("before %s: %d %v, want %d", before, n, err, want)
			}
		}
	})
}
