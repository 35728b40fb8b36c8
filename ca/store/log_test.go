package store_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", to tamper with
	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// logWorld is a record with a log, and an attacker who can write to its database.
type logWorld struct {
	t      testing.TB
	where  string
	s      *store.Store
	key    *translog.Key
	issuer *x509.Certificate
	signer *ecdsa.PrivateKey
	seen   translog.Head
	start  time.Time
	n      int64 // certificates so far; serials are 1001, 1002, …
}

func newLogWorld(t testing.TB, where string) *logWorld {
	t.Helper()
	key, err := translog.NewKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	w := &logWorld{t: t, where: where, s: open(t, where), key: key, start: time.Now().Add(-time.Hour).UTC()}
	if w.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.issuer = w.sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: w.start, NotAfter: w.start.Add(48 * time.Hour), SubjectKeyId: []byte{1, 2, 3}, KeyUsage: x509.KeyUsageCertSign}, nil)
	return w
}

func (w *logWorld) sign(tmpl, by *x509.Certificate) *x509.Certificate {
	w.t.Helper()
	if by == nil {
		by = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by, w.signer.Public(), w.signer)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// issue commits n certificates, a second apart.
func (w *logWorld) issue(n int) {
	w.t.Helper()
	for range n {
		w.n++
		at := w.start.Add(time.Duration(w.n) * time.Second)
		leaf := w.sign(&x509.Certificate{SerialNumber: big.NewInt(1000 + w.n), Subject: pkix.Name{CommonName: "storage"}, DNSNames: []string{"storage"},
			NotBefore: at.Add(-time.Minute), NotAfter: at.Add(time.Hour)}, w.issuer)
		c := record.NewCertificate([]*x509.Certificate{leaf, w.issuer}, at)
		c.Service, c.Kind, c.Caller = "storage", kinds.Issued, "token"
		if w.n == 9 { // one that rests on a proof with an end
			c.ProofUntil = c.NotAfter
		}
		commit(w.t, w.s, c)
	}
}

func (w *logWorld) revoke(serial string) {
	w.t.Helper()
	if err := w.s.Revoke(w.t.Context(), store.RevokeRequest{Revocation: record.Revocation{
		Serial: serial, RevokedAt: w.start.Add(time.Duration(w.n) * time.Second), Reason: 1, Note: "lost", Caller: "operator"}}); err != nil {
		w.t.Fatal(err)
	}
}

// sequence runs the sequencer until nothing waits.
func (w *logWorld) sequence() []byte {
	w.t.Helper()
	for {
		text, more, err := w.s.Sequence(w.t.Context(), w.key, w.seen)
		if err != nil {
			w.t.Fatal(err)
		}
		if text != nil {
			if w.seen, err = w.key.Verifier().Open(text); err != nil {
				w.t.Fatal(err)
			}
		}
		if !more {
			return text
		}
	}
}

func (w *logWorld) verify(kept ...translog.Head) translog.Report {
	w.t.Helper()
	report, err := w.s.VerifyLog(w.t.Context(), translog.Check{Verifier: w.key.Verifier(), Kept: kept})
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

// tamper writes to the database behind the program's back. %s in a statement
// becomes a literal of bytes.
func (w *logWorld) tamper(text string, blobs ...[]byte) {
	w.t.Helper()
	driver, form := "sqlite", "x'%x'"
	if strings.HasPrefix(w.where, "postgres") {
		driver, form = "pgx", `decode('%x', 'hex')`
	}
	path := w.where
	if driver == "sqlite" {
		path = "file:" + strings.NewReplacer("?", "%3f", "#", "%23", "%", "%25", " ", "%20").Replace(path)
	}
	db, err := sql.Open(driver, path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, b := range blobs {
		text = strings.Replace(text, "%s", fmt.Sprintf(form, b), 1)
	}
	for _, one := range strings.Split(text, ";") {
		res, err := db.ExecContext(w.t.Context(), one)
		if err != nil {
			w.t.Fatalf("%s: %v", one, err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			w.t.Fatalf("%s: changed nothing", one)
		}
	}
}

func TestLogGrows(t *testing.T) { postgres.Engines(t, logGrows) }

func logGrows(t *testing.T, where string) {
	w := newLogWorld(t, where)
	if text := w.sequence(); text != nil {
		t.Errorf("a head of nothing: %q", text)
	}
	var heads []translog.Head
	for _, n := range []int{1, 2, 300, 5} {
		w.issue(n)
		w.sequence()
		heads = append(heads, w.seen)
	}
	w.revoke("1002")
	if err := w.s.Refuse(t.Context(), record.Event{At: w.start.Add(time.Hour), Caller: "someone", Rule: "names", Detail: "sign"}); err != nil {
		t.Fatal(err)
	}
	report := w.verify(heads...)
	if report.Size != 308 || report.Checked != 308 || report.Pending != 2 || len(report.Findings) != 0 {
		t.Errorf("before the last head: %+v", report)
	}
	w.sequence()
	if report = w.verify(heads...); report.Size != 310 || report.Checked != 310 || report.Pending != 0 || len(report.Findings) != 0 {
		t.Errorf("%+v", report)
	}
	for _, from := range heads {
		proof, err := w.s.LogConsistency(t.Context(), w.seen, from.Size, w.seen.Size)
		if err != nil {
			t.Errorf("from %d: %v", from.Size, err)
			continue
		}
		if err := tlog.CheckTree(proof, w.seen.Size, w.seen.Root, from.Size, from.Root); err != nil {
			t.Errorf("from %d: %v", from.Size, err)
		}
	}
	for _, index := range []int64{0, 255, 256, 309} {
		e, err := w.s.LogEntry(t.Context(), w.seen, index)
		if err != nil {
			t.Errorf("entry %d: %v", index, err)
			continue
		}
		if err := tlog.CheckRecord(e.Proof, w.seen.Size, w.seen.Root, index, tlog.RecordHash(e.Payload)); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
		if said, err := translog.ParseEntry(e.Payload); err != nil || index < 256 && said.Serial != fmt.Sprint(1001+index) {
			t.Errorf("entry %d: %+v, %v", index, said, err)
		}
	}
	if _, err := w.s.LogEntry(t.Context(), w.seen, 310); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("an entry beyond the end: %v", err)
	}
	for _, bad := range [][2]int64{{0, 1}, {5, 4}, {1, 311}} {
		if _, err := w.s.LogConsistency(t.Context(), w.seen, bad[0], bad[1]); err == nil {
			t.Errorf("a proof from %d to %d", bad[0], bad[1])
		}
	}
}

func (w *logWorld) head() translog.Head {
	w.sequence()
	return w.seen
}

// copyOf is the same world on a copy of the database.
func (w *logWorld) copyOf(t *testing.T) *logWorld {
	t.Helper()
	out := *w
	out.t, out.where = t, t.TempDir()+"/copy.db"
	if strings.HasPrefix(w.where, "postgres") {
		out.where = postgres.Database(t)
	}
	out.s = open(t, out.where)
	if _, err := store.Copy(t.Context(), w.s, out.s, nil); err != nil {
		t.Fatal(err)
	}
	return &out
}

func (w *logWorld) vacuumInto(path string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.NewReplacer("?", "%3f", "#", "%23", "%", "%25", " ", "%20").Replace(w.where))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(w.t.Context(), `VACUUM INTO '`+path+`'`); err != nil {
		w.t.Fatal(err)
	}
}

// TestOneSequencer: any number of processes on one record make one log.
func TestOneSequencer(t *testing.T) { postgres.Engines(t, oneSequencer) }

func oneSequencer(t *testing.T, where string) {
	w := newLogWorld(t, where)
	done := make(chan error)
	for i := range 3 {
		s := open(t, where)
		go func() {
			var err error
			for n := range 40 {
				c := entry(100*i+n, "storage")
				c.IssuedAt = w.start
				if _, err = s.Commit(t.Context(), store.Issuance{Certificate: c}); err != nil {
					break
				}
				if _, _, err = s.Sequence(t.Context(), w.key, translog.Head{}); err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	w.sequence()
	if report := w.verify(); report.Checked != 120 || report.Size != 120 || len(report.Findings) > 0 {
		t.Errorf("%+v", report)
	}
}
