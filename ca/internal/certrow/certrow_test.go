package certrow_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

// TestFind: what was stored comes back whole, with and without an end of its proof, and
// with its revocation.
func TestFind(t *testing.T) {
	db, err := sqldb.Create(t.Context(), filepath.Join(t.TempDir(), "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := store.New(db)
	defer func() { _ = s.Close() }()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	c := record.Certificate{
		Serial: "4711", Service: "storage", Kind: kinds.Issued, Provisioner: "services", Caller: "token", Lineage: "4711",
		Issuer: "aa", KeyHash: strings.Repeat("0f", 32), Names: []string{"storage", "10.0.0.1"},
		NotBefore: at, NotAfter: at.Add(time.Hour), IssuedAt: at.Add(time.Minute), DER: []byte{1, 2}, Chain: []byte{3},
	}
	next := c
	next.Serial, next.Previous, next.Kind, next.ProofUntil, next.Chain = "4712", "4711", kinds.Renewed, at.Add(2*time.Hour), []byte{}
	for _, want := range []record.Certificate{c, next} {
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: want}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "4712", RevokedAt: at, Reason: 1, Note: "lost", Caller: "operator"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []record.Certificate{c, next} {
		found, err := certrow.Find(t.Context(), db.Read, want.Serial)
		if err != nil || found.ID <= 0 {
			t.Fatalf("%+v, %v", found, err)
		}
		got := found.Certificate
		if got.Service != want.Service || got.Kind != want.Kind || got.Provisioner != want.Provisioner || got.Caller != want.Caller ||
			got.Lineage != want.Lineage || got.Previous != want.Previous || got.Issuer != want.Issuer || got.KeyHash != want.KeyHash ||
			!slices.Equal(got.Names, want.Names) || !got.NotBefore.Equal(want.NotBefore) || !got.NotAfter.Equal(want.NotAfter) ||
			!got.IssuedAt.Equal(want.IssuedAt) || !got.ProofUntil.Equal(want.ProofUntil) || !bytes.Equal(got.DER, want.DER) || !bytes.Equal(got.Chain, want.Chain) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if r := got.Revocation; (r != nil) != (want.Serial == "4712") || r != nil && (*r != record.Revocation{Serial: "4712", RevokedAt: at, Reason: 1, Note: "lost", Caller: "operator"}) {
			t.Errorf("%s: revocation %+v", want.Serial, r)
		}
	}
	_, err = certrow.Find(t.Context(), db.Read, "1")
	if !errors.Is(err, record.ErrNotFound) || !strings.Contains(err.Error(), "certificate 0x1:") {
		t.Errorf("an unknown one: %v", err)
	}
}

// TestDamagedRow: a row that cannot be read is an error that names the certificate.
func TestDamagedRow(t *testing.T) {
	db, err := sqldb.Create(t.Context(), filepath.Join(t.TempDir(), "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	s := store.New(db)
	defer func() { _ = s.Close() }()
	c := record.Certificate{Serial: "4711", Lineage: "4711", Kind: kinds.Issued, KeyHash: strings.Repeat("0f", 32), DER: []byte{1}}
	if _, err := s.Commit(t.Context(), store.Issuance{Certificate: c}); err != nil {
		t.Fatal(err)
	}
	err = db.Change(t.Context(), func(tx *sqldb.Txn) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE certificates SET names = '{'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certrow.Find(t.Context(), db.Read, "4711"); err == nil || errors.Is(err, record.ErrNotFound) || !strings.Contains(err.Error(), "4711") {
		t.Error(err)
	}
}
