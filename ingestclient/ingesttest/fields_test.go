package ingesttest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
)

// TestDroppedFieldsAreSaid expects in File.Dropped the fields that each dialect does not
// store.
func TestDroppedFieldsAreSaid(t *testing.T) {
	all := ingestclient.Meta{
		FileID: "11111111-2222-3333-4444-555555555555", Description: "d", Version: "1", Tags: []string{"a", "b"}, Retention: "temporary", TTLDays: 7,
	}
	for _, tc := range []struct {
		dialect, mode string
		meta          ingestclient.Meta
		want          []string
	}{
		{"python", "", all, []string{"retention_policy", "tags", "ttl_days"}},
		{"go", "edit", all, []string{"file_id", "ttl_days", "version"}},
		{"go", "rw", ingestclient.Meta{Retention: "temporary"}, []string{"retention_policy"}},
		{"go", "rw", ingestclient.Meta{Retention: "permanent", Description: "d", Tags: []string{"a"}}, nil},
		{"python", "", ingestclient.Meta{Description: "d", Version: "1"}, nil},
		{"go", "edit", ingestclient.Meta{Retention: "temporary", TTLDays: 30}, nil}, // what the mode gives anyway
	} {
		s := ingesttest.Start(t, ingesttest.Options{Dialect: tc.dialect, Mode: tc.mode})
		rec, err := newClient(t, s).Upload(t.Context(), ingestclient.ReaderContent("f", strings.NewReader("x"), 1), tc.meta)
		if err != nil || !slices.Equal(rec.Dropped, tc.want) {
			t.Errorf("%s %s: %+v, %v", tc.dialect, tc.mode, rec, err)
		}
	}
}
