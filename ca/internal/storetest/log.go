package storetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", to tamper with

	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// Log is a record with a log, and an attacker who can write to its database.
type Log struct {
	t     testing.TB
	Where string
	Store *store.Store
	// Key signs heads. All logs have the same one, so that one can stand in for another.
	Key *translog.Key
	// Seen is the newest head that [Log.Sequence] returned, as an authority keeps it. A
	// test sets it to zero to be a process that has just been started.
	Seen translog.Head
	// Start is an hour ago. The certificate with serial 1000+n was issued n seconds later.
	Start time.Time
	// Issued is the number of certificates so far; serials are 1001, 1002, …
	Issued int64

	issuer *x509.Certificate
	signer *ecdsa.PrivateKey
}

// LogKey returns a key that signs heads, always the same for the same seed.
func LogKey(t testing.TB, seed byte) *translog.Key {
	t.Helper()
	key, err := translog.NewKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// NewLog opens or makes a record, with nothing in its log.
func NewLog(t testing.TB, where string) *Log {
	t.Helper()
	l := &Log{t: t, Where: where, Store: Open(t, where), Key: LogKey(t, 7), Start: time.Now().Add(-time.Hour).UTC()}
	var err error
	if l.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	l.issuer = l.Sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: l.Start, NotAfter: l.Start.Add(48 * time.Hour), SubjectKeyId: []byte{1, 2, 3}, KeyUsage: x509.KeyUsageCertSign}, nil)
	return l
}

// Sign issues a certificate for a template, by itself if by is nil. It is not recorded.
func (l *Log) Sign(tmpl, by *x509.Certificate) *x509.Certificate {
	l.t.Helper()
	if by == nil {
		by = tmpl
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by, l.signer.Public(), l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// Issue commits n certificates, a second apart.
func (l *Log) Issue(n int) {
	l.t.Helper()
	for range n {
		l.Issued++
		at := l.Start.Add(time.Duration(l.Issued) * time.Second)
		leaf := l.Sign(&x509.Certificate{SerialNumber: big.NewInt(1000 + l.Issued), Subject: pkix.Name{CommonName: "storage"}, DNSNames: []string{"storage"},
			NotBefore: at.Add(-time.Minute), NotAfter: at.Add(time.Hour)}, l.issuer)
		c := record.NewCertificate([]*x509.Certificate{leaf, l.issuer}, at)
		c.Service, c.Kind, c.Caller = "storage", kinds.Issued, "token"
		if l.Issued == 9 { // one that rests on a proof with an end
			c.ProofUntil = c.NotAfter
		}
		Commit(l.t, l.Store, c)
	}
}

// Revoke revokes the lineage of a certificate that was issued, as the operator does.
func (l *Log) Revoke(serial string) {
	l.t.Helper()
	if err := l.Store.Revoke(l.t.Context(), store.RevokeRequest{Revocation: record.Revocation{
		Serial: serial, RevokedAt: l.Start.Add(time.Duration(l.Issued) * time.Second), Reason: 1, Note: "lost", Caller: "operator"}}); err != nil {
		l.t.Fatal(err)
	}
}

// Sequence runs the sequencer until nothing waits, and returns the newest head as text.
func (l *Log) Sequence() []byte {
	l.t.Helper()
	for {
		text, more, err := l.Store.Sequence(l.t.Context(), l.Key, l.Seen)
		if err != nil {
			l.t.Fatal(err)
		}
		if text != nil {
			if l.Seen, err = l.Key.Verifier().Open(text); err != nil {
				l.t.Fatal(err)
			}
		}
		if !more {
			return text
		}
	}
}

// Verify verifies the log against heads that were kept.
func (l *Log) Verify(kept ...translog.Head) translog.Report {
	l.t.Helper()
	report, err := l.Store.VerifyLog(l.t.Context(), translog.Check{Verifier: l.Key.Verifier(), Kept: kept})
	if err != nil {
		l.t.Fatal(err)
	}
	return report
}

// Tamper writes to the database behind the program's back. text is statements with
// semicolons between them, each of which must change a row; each %s becomes a literal of the
// next bytes, which SQLite and PostgreSQL spell differently.
func (l *Log) Tamper(text string, blobs ...[]byte) {
	l.t.Helper()
	driver, path, form := "sqlite", sqlitePath(l.Where), "x'%x'"
	if strings.HasPrefix(l.Where, "postgres") {
		driver, path, form = "pgx", l.Where, `decode('%x', 'hex')`
	}
	db, err := sql.Open(driver, path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, b := range blobs {
		text = strings.Replace(text, "%s", fmt.Sprintf(form, b), 1)
	}
	for _, one := range strings.Split(text, ";") {
		res, err := db.ExecContext(l.t.Context(), one)
		if err != nil {
			l.t.Fatalf("%s: %v", one, err)
		}
		if n, _ := res.RowsAffected(); n == 0 {
			l.t.Fatalf("%s: changed nothing", one)
		}
	}
}

// Head sequences and returns the newest head.
func (l *Log) Head() translog.Head {
	l.Sequence()
	return l.Seen
}

// CopyTo copies the record to another place, and returns the same log there.
func (l *Log) CopyTo(t testing.TB, where string) *Log {
	t.Helper()
	out := *l
	out.t, out.Where, out.Store = t, where, Open(t, where)
	if _, err := store.Copy(t.Context(), l.Store, out.Store, nil); err != nil {
		t.Fatal(err)
	}
	return &out
}

// VacuumInto writes the SQLite database to another file, with which a test can put this state
// back later.
func (l *Log) VacuumInto(path string) {
	l.t.Helper()
	db, err := sql.Open("sqlite", sqlitePath(l.Where))
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(l.t.Context(), `VACUUM INTO ?`, path); err != nil {
		l.t.Fatal(err)
	}
}

// sqlitePath names a file as the driver takes it: a test's directory has the name of the
// test in it, and with that characters that a URL gives a meaning to.
func sqlitePath(path string) string {
	return "file:" + strings.NewReplacer("?", "%3f", "#", "%23", "%", "%25", " ", "%20").Replace(path)
}
