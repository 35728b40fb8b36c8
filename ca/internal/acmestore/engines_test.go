package acmestore_test

import (
	"errors"
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// replica is one process that has the record open.
type replica struct {
	*store.Store
	acme *acmestore.Store
	db   *sqldb.DB
}

func newReplica(db *sqldb.DB) *replica {
	return &replica{Store: store.New(db), acme: acmestore.New(db), db: db}
}

// open opens a record, and makes its schema if there is none.
func open(t testing.TB, where string) *replica {
	t.Helper()
	db, err := sqldb.Open(t.Context(), where)
	if errors.Is(err, sqldb.ErrNoRecord) {
		return create(t, where)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return newReplica(db)
}

func create(t testing.TB, where string) *replica {
	t.Helper()
	db, err := sqldb.Create(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return newReplica(db)
}
