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

// toEntry is an event as the log has it. subject is the digest of the row that the
// event tells of, or zero.
func toEntry(e record.Event, subject [sha256.Size]byte) translog.Entry {
	return translog.Entry{
		At: e.At, Kind: e.Kind, Caller: e.Caller, Service: e.Service, Serial: e.Serial, Rule: e.Rule, Detail: e.Detail, Subject: subject,
	}
}

// CertificateDigest digests all that the record says about a certificate, the copies of
// what its DER says included: lists and limits go by those.
//
// The end of a proof came later than the rest. A certificate without one has the
// form from before, so that entries of then still fit; one with it has another form,
// so that taking the end away, or putting one there, is as visible as changing it.
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

// Revocation is a revocation with the copies that lists are made by.
type Revocation struct {
	record.Revocation
	Lineage, Issuer string
	NotAfter        time.Time
	Mark            int64 // of the transaction that revoked
}

// Digest digests all that the record says about a revocation.
func (r *Revocation) Digest() [sha256.Size]byte {
	return translog.NewFields("revocation 1").
		Text(r.Serial).Text(r.Lineage).Text(r.Issuer).Int(sqldb.Millis(r.NotAfter)).Int(r.Mark).
		Int(sqldb.Millis(r.RevokedAt)).Int(int64(r.Reason)).Text(r.Note).Text(r.Caller).Digest()
}

// Append writes an event and its leaf, in the transaction of the row that
// subject is the digest of; zero if the event tells of no row. It returns the id of
// the event.
func Append(ctx context.Context, tx *sqldb.Txn, e record.Event, subject [sha256.Size]byte) (id int64, err error) {
	leaf := toEntry(e, subject).Leaf()
	args := []any{sqldb.Millis(e.At), e.Kind, e.Caller, e.Service, e.Serial, e.Rule, e.Detail}
	const text = `INSERT INTO events (at, kind, caller, service, serial, rule, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`
	if tx.Concurrent { // PostgreSQL, where a statement is a round trip: both rows in one
		const both = `WITH e AS (` + text + ` RETURNING id) INSERT INTO log_pending (event, leaf) SELECT id, CAST(? AS BYTEA) FROM e RETURNING event`
		err = tx.QueryRowContext(ctx, both, append(args, leaf[:])...).Scan(&id)
	} else { // SQLite, where the driver knows the id at once
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
