// Package storetest makes records for the tests of what keeps and verifies them. Only tests
// import it.
//
//	s := storetest.Open(t, where)
//	storetest.Commit(t, s, storetest.Entry(1, "storage"))
//
//	l := storetest.NewLog(t, where)
//	l.Issue(3)
//	head := l.Head()
//	l.Tamper(`UPDATE certificates SET names = '[]'`)
//	report := l.Verify(head)
//
// where is a path for SQLite or the URL of a PostgreSQL database, as for [store.Open].
package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
)

// Base is the moment from which the certificates of [Entry] are valid.
var Base = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Open opens a record until the test ends, and makes it first if there is none.
func Open(t testing.TB, where string) *store.Store {
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

// Entry returns the first certificate of a lineage, with the serial 1000+n. Its DER is no
// certificate: it is for tests of what the record does with the other columns. It ends n/2
// hours after [Base], so that certificates of consecutive numbers end together in pairs.
func Entry(n int, service string) record.Certificate {
	serial := fmt.Sprint(1000 + n)
	return record.Certificate{
		Serial: serial, Lineage: serial, Service: service, Kind: kinds.Issued, Issuer: "aa", KeyHash: certs.KeyHash([]byte(serial)), Caller: "test",
		Names: []string{service, fmt.Sprintf("n%d", n)}, NotBefore: Base, NotAfter: Base.Add(time.Duration(n/2) * time.Hour), IssuedAt: Base, DER: []byte{1}, Chain: []byte{2},
	}
}

// Commit stores a certificate that rests on no token and has no limit.
func Commit(t testing.TB, s *store.Store, c record.Certificate) {
	t.Helper()
	if _, err := s.Commit(t.Context(), store.Issuance{Certificate: c}); err != nil {
		t.Fatal(err)
	}
}
