package ca_test

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

// TestRevokeByCertificate: a certificate that an intermediate has signed can be
// revoked although the record does not have it. A certificate of another authority
// cannot.
func TestRevokeByCertificate(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cert := enrol(t, c, "storage", "storage").Leaf
	headOf(t, c, 2)
	rec := openRecord(t, c)
	// A restored record would have neither the certificate nor an event of it.
	damage.SQL(t, c.Dir, `DELETE FROM certificate_names; DELETE FROM log_pending; DELETE FROM certificates WHERE kind = 'issued'`)
	serial := cert.SerialNumber.String()
	if err := rec.Revoke(t.Context(), serial, 1, ""); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("by its serial: %v", err)
	}
	other := catest.Start(t, catest.Options{Profiles: profiles()})
	foreign := enrol(t, other, "storage", "storage").Leaf
	for name, cert := range map[string]*x509.Certificate{"another authority's": foreign, "a root": c.Roots()[0]} {
		if _, err := rec.RevokeCertificate(t.Context(), cert, 1, ""); !errors.Is(err, ca.ErrNotOurs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, known, err := rec.Revocable(t.Context(), cert); err != nil || known {
		t.Errorf("before: %v %v", known, err)
	}
	if _, err := rec.RevokeCertificate(t.Context(), cert, 6, ""); err == nil || !strings.Contains(err.Error(), "certificateHold is not supported") {
		t.Errorf("a hold: %v", err)
	}
	done, err := rec.RevokeCertificate(t.Context(), cert, 1, "stolen")
	if err != nil || done.Kind != kinds.Entered || done.Service != "storage" {
		t.Fatalf("%+v %v", done, err)
	}
	if _, _, err := rec.Revocable(t.Context(), cert); !errors.Is(err, store.ErrAlreadyRevoked) {
		t.Errorf("again: %v", err)
	}
	if lists := revokedSerials(t, newClient(t, c, nil)); !slices.Contains(lists, serial) {
		t.Errorf("it is not on the list: %q", lists)
	}
	shown, err := rec.Show(t.Context(), serial)
	if err != nil || shown.Kind != kinds.Entered || shown.Revocation == nil || shown.Revocation.Note != "stolen" {
		t.Errorf("%+v %v", shown, err)
	}
}
