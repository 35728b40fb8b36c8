package eventlog

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/translog"
)

// toEntry returns the entry of an event. subject is the digest of the row that the event
// tells of, or zero if there is none.
func toEntry(e record.Event, subject [sha256.Size]byte) translog.Entry {
	return translog.Entry{
		At: e.At, Kind: e.Kind, Caller: e.Caller, Service: e.Service, Serial: e.Serial, Rule: e.Rule, Detail: e.Detail, Subject: subject,
	}
}

// CertificateDigest digests all columns of a certificate. That includes those which repeat
// what its DER says, because revocation lists and limits are computed from these columns.
//
// ProofUntil was added to the record later. A certificate without it is digested in the form
// from before, so that old entries still verify. A certificate with it has another form, so
// that removing or adding the time changes the digest as well.
func CertificateDigest(c *record.Certificate) [sha256.Size]byte {
	form := "certificate 1"
	if !c.ProofUntil.IsZero() {
		form = "certificate 2"
	}
	fields := translog.NewFields(form).
		Text(c.Serial).Text(c.Service).Text(c.Kind).Text(c.Provisioner).Text(c.Caller).
		Text(c.Lineage).Text(c.Previous).Text(c.Issuer).Text(c.KeyHash).Texts(c.Names).
		Int(sqldb.Millis(c.NotBefore)).Int(sqldb.Millis(c.NotAfter)).Int(sqldb.Millis(c.IssuedAt)).
		Bytes(c.DER).Bytes(c.Chain)
	if !c.ProofUntil.IsZero() {
		fields = fields.Int(sqldb.Millis(c.ProofUntil))
	}
	return fields.Digest()
}

// Revocation is a revocation with the columns of the certificate that revocation lists are
// made from.
type Revocation struct {
	record.Revocation
	Lineage, Issuer string
	NotAfter        time.Time
	Mark            int64 // number of the transaction that revoked; it only grows
}

// Digest digests all that the record says about a revocation.
func (r *Revocation) Digest() [sha256.Size]byte {
	return translog.NewFields("revocation 1").
		Text(r.Serial).Text(r.Lineage).Text(r.Issuer).Int(sqldb.Millis(r.NotAfter)).Int(r.Mark).
		Int(sqldb.Millis(r.RevokedAt)).Int(int64(r.Reason)).Text(r.Note).Text(r.Caller).Digest()
}

// Append writes an event and its leaf, and returns the id of the event. subject is the
// digest of the row that the event tells of, or zero. tx must be the transaction that writes
// this row: otherwise a crash leaves one without the other, and [Log.Verify] reports it.
func Append(ctx context.Context, tx *sqldb.Txn, e record.Event, subject [sha256.Size]byte) (id int64, err error) {
	leaf := toEntry(e, subject).Leaf()
	args := []any{sqldb.Millis(e.At), e.Kind, e.Caller, e.Service, e.Serial, e.Rule, e.Detail}
	const text = `INSERT INTO events (at, kind, caller, service, serial, rule, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`
	if tx.Concurrent { // PostgreSQL: one statement is one round trip, so it writes both rows
		const both = `WITH e AS (` + text + ` RETURNING id) INSERT INTO log_pending (event, leaf) SELECT id, CAST(? AS BYTEA) FROM e RETURNING event`
		err = tx.QueryRowContext(ctx, both, append(args, leaf[:])...).Scan(&id)
	} else { // SQLite: the driver returns the id without a query
		var res sql.Result
		if res, err = tx.ExecContext(ctx, text, args...); err == nil {
			id, err = res.LastInsertId()
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, `INSERT INTO log_pending (event, leaf) VALUES (?, ?)`, id, leaf[:])
		}
	}
	if err != nil {
		return 0, fmt.Errorf("inserting the event: %w", err)
	}
	return id, nil
}
