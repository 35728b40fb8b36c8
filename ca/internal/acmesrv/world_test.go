package acmesrv_test

import (
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

func openRecord(t testing.TB, c *catest.CA) *ca.Record {
	t.Helper()
	r, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// listAll returns the certificates in the record, with that of the authority itself.
func listAll(t testing.TB, c *catest.CA) []record.Certificate {
	t.Helper()
	page, next, err := openRecord(t, c).List(t.Context(), record.Query{Limit: 1000})
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	return page
}
