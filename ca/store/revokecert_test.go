package store_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
)

// TestRevokeCertificate: one that the record does not have is entered and revoked
// in one step, on the list, and in a log that verifies.
func TestRevokeCertificate(t *testing.T) { postgres.Engines(t, revokeCertificate) }

func revokeCertificate(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	elsewhere := storetest.NewLog(t, t.TempDir()+"/elsewhere.db") // serials 1001, 1002, …
	w.Issue(1)
	elsewhere.Issue(3)
	lost, err := elsewhere.Store.Get(t.Context(), "1003")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := elsewhere.Store.Get(t.Context(), "1001")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	revocation := record.Revocation{RevokedAt: now, Reason: 1, Note: "lost", Caller: "operator"}
	if err := w.Store.RevokeCertificate(t.Context(), taken, revocation); !errors.Is(err, store.ErrSerialTaken) {
		t.Errorf("another certificate of this serial: %v", err)
	}
	var group sync.WaitGroup
	outcomes := make([]error, 4)
	for i := range outcomes {
		group.Go(func() { outcomes[i] = w.Store.RevokeCertificate(t.Context(), lost, revocation) })
	}
	group.Wait()
	done := 0
	for _, err := range outcomes {
		if err == nil {
			done++
		} else if !errors.Is(err, store.ErrAlreadyRevoked) {
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("revoked %d times", done)
	}
	c, err := w.Store.Get(t.Context(), "1003")
	if err != nil || c.Kind != kinds.Entered || c.Caller != "operator" || c.Service != "storage" || c.Lineage != "1003" || c.Revocation == nil || c.Revocation.Reason != 1 {
		t.Errorf("%+v %v", c, err)
	}
	known, err := w.Store.Get(t.Context(), "1001")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Store.RevokeCertificate(t.Context(), known, revocation); err != nil {
		t.Errorf("one that the record has: %v", err)
	}
	if known, err = w.Store.Get(t.Context(), "1001"); err != nil || known.Kind != kinds.Issued || known.Revocation == nil {
		t.Errorf("%+v %v", known, err)
	}
	mark, err := w.Store.RevocationMark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed, err := w.Store.RevokedBetween(t.Context(), record.RevokedRange{Issuer: "010203", UpTo: mark, Now: w.Start})
	if err != nil || len(listed) != 2 {
		t.Errorf("%+v %v", listed, err)
	}
	for _, kind := range []string{kinds.Entered, "revoked"} {
		if events, err := w.Store.Events(t.Context(), kind, 0, 10); err != nil || len(events) == 0 || events[0].Serial != "1003" {
			t.Errorf("%s: %+v %v", kind, events, err)
		}
	}
	w.Sequence()
	if report := w.Verify(); len(report.Findings) > 0 || report.Checked != 4 {
		t.Errorf("log: %+v", report)
	}
	w.Tamper(`UPDATE certificates SET service = 'other' WHERE serial = '1003'`)
	if report := w.Verify(); len(report.Findings) != 1 || report.Findings[0].Kind != kinds.Entered {
		t.Errorf("an entered row that was changed: %+v", report)
	}
}
