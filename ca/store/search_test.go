package store_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
)

func TestSearch(t *testing.T) { postgres.Engines(t, search) }

func search(t *testing.T, where string) {
	s := storetest.Open(t, where)
	for i, names := range [][]string{{"storage-element-01", "storage"}, {"storage-element-02"}, {"ingester", "10.0.0.7"}, {"storage_x"}, {"STORAGE"}, {"stora"}, {"storagf"}} {
		c := storetest.Entry(i, "a")
		c.Names = names
		storetest.Commit(t, s, c)
	}
	all := func(prefix string, limit int) (serials []string) {
		for q := (record.Search{Prefix: prefix, Limit: limit}); ; {
			page, next, err := s.Search(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page {
				serials = append(serials, c.Serial)
			}
			if q.Cursor = next; next == "" {
				return serials
			}
		}
	}
	for prefix, want := range map[string][]string{
		"storage": {"1000", "1001", "1003"}, "storage-element": {"1000", "1001"}, "10.0": {"1002"}, "storage_": {"1003"}, "x": nil, "stora": {"1005", "1000", "1001", "1003", "1006"},
	} {
		for _, limit := range []int{0, 1, 2, 1000} {
			if got := all(prefix, limit); !slices.Equal(got, want) {
				t.Errorf("%s, %d a page: %v, want %v", prefix, limit, got, want)
			}
		}
	}
	for _, bad := range []record.Search{{}, {Prefix: "a b"}, {Prefix: "ä"}, {Prefix: "a", Cursor: "x"}, {Prefix: "a", Cursor: "1.2"}, {Prefix: "a", Cursor: "1.x.a"}, {Prefix: "a", Cursor: "x.1.a"}, {Prefix: "a", Cursor: "1.1."}} {
		if _, _, err := s.Search(t.Context(), bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// FuzzSearch: any prefix and cursor give a page or an error.
func FuzzSearch(f *testing.F) {
	s := storetest.Open(f, f.TempDir()+"/pki.db")
	for i := range 3 {
		storetest.Commit(f, s, storetest.Entry(i, fmt.Sprint("storage", i)))
	}
	f.Add("storage", "")
	f.Add("~", "1.2.name")
	f.Add("%", "-1.-1.a")
	f.Fuzz(func(t *testing.T, prefix, cursor string) {
		page, _, err := s.Search(t.Context(), record.Search{Prefix: prefix, Cursor: cursor})
		if err == nil && len(page) > 3 {
			t.Errorf("%q %q: %d rows", prefix, cursor, len(page))
		}
	})
}
