package eventlog_test

import (
	"encoding/hex"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// TestFormsStay: a log is verified by the rows of today, so the form of a row that was
// logged years ago must never change. A digest here that has to be replaced means that
// every log with that form is reported as altered.
func TestFormsStay(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	c := record.Certificate{
		Serial: "4711", Service: "storage", Kind: kinds.Renewed, Provisioner: "services", Caller: "token", Lineage: "4710", Previous: "4710",
		Issuer: "aa", KeyHash: "bb", Names: []string{"storage", "10.0.0.1"}, NotBefore: at, NotAfter: at.Add(time.Hour), IssuedAt: at.Add(time.Minute),
		DER: []byte{1, 2}, Chain: []byte{3},
	}
	proven := c
	proven.ProofUntil = at.Add(30 * time.Minute)
	revoked := eventlog.Revocation{
		Revocation: record.Revocation{Serial: "4711", RevokedAt: at, Reason: 1, Note: "lost", Caller: "operator"},
		Lineage:    "4710", Issuer: "aa", NotAfter: at.Add(time.Hour), Mark: 7,
	}
	for _, form := range []struct {
		name string
		got  [32]byte
		want string
	}{
		{"certificate 1", eventlog.CertificateDigest(&c), "2e051fb5b3269aad0519592f453cec2180ebeee11fcddf3b1606481bf5e9236f"},
		{"certificate 2", eventlog.CertificateDigest(&proven), "c4bab2bb3395cd071711ce25a2c2616738edd3980ab7045bc393729b699b449d"},
		{"revocation 1", revoked.Digest(), "cceec5f1b6624dee314323805894e2e23b264d41a678ac09ccf6f3dbb7093b86"},
	} {
		if got := hex.EncodeToString(form.got[:]); got != form.want {
			t.Errorf("%s: %s, want %s", form.name, got, form.want)
		}
	}
}

// TestAppend: an event and its leaf are written together, in the transaction of the
// caller, and not without it.
func TestAppend(t *testing.T) {
	db, err := sqldb.Create(t.Context(), filepath.Join(t.TempDir(), "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	gone := errors.New("the caller changed its mind")
	for _, end := range []error{nil, gone, nil} {
		err := db.Change(t.Context(), func(tx *sqldb.Txn) error {
			id, err := eventlog.Append(t.Context(), tx, record.Event{At: time.Now(), Kind: kinds.Refused, Caller: "someone"}, [32]byte{})
			if err == nil && id <= 0 {
				t.Errorf("event %d", id)
			}
			return errors.Join(err, end)
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	var events, leaves int
	if err := db.Read.QueryRowContext(t.Context(), `SELECT (SELECT COUNT(*) FROM events), (SELECT COUNT(*) FROM log_pending)`).Scan(&events, &leaves); err != nil {
		t.Fatal(err)
	}
	if events != 2 || leaves != 2 {
		t.Errorf("%d events and %d leaves of 2", events, leaves)
	}
}
