// Package certrow reads certificates from the tables of the record: which columns
// a certificate is made of, which tables they are in, and how a row becomes a value.
// What lists certificates, what verifies the log and what answers an ACME client
// read them the same way.
//
//	found, err := certrow.Find(ctx, db.Read, "4711")
//	rows, err := q.QueryContext(ctx, `SELECT `+certrow.Columns+certrow.From+` WHERE c.service = ?`, name)
//	id, err := certrow.Scan(rows, &certificate)
//
// Invariants:
//
//   - The joins of [From] and [Names] are outer joins, so a row of certificates is
//     never lost to a row that is missing elsewhere, and a filter decides where the
//     database begins its scan.
package certrow

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
)

// Columns are what [Scan] reads, in its order. The certificates are called c, their
// issuers i, their chains h, their deliveries d and their revocations r.
const Columns = `c.id, c.serial, c.service, c.kind, c.provisioner, c.caller, c.lineage, c.previous, i.key_id, c.key_hash, c.names,
	c.not_before, c.not_after, c.issued_at, c.proof_until, c.der, h.der, r.revoked_at, r.reason, r.note, r.caller,
	d.address, d.servers, d.since`

// From is the FROM clause for [Columns], beginning with the certificates.
const From = ` FROM certificates c LEFT JOIN revocations r ON r.certificate = c.id` + Names

// Names joins the tables that a certificate refers to by a number, and its delivery. It is for a FROM
// clause that begins with another table than the certificates.
const Names = ` LEFT JOIN issuers i ON i.id = c.issuer LEFT JOIN chains h ON h.id = c.chain
	LEFT JOIN deliveries d ON d.certificate = c.id`

// Stored is a certificate with its number in the table.
type Stored struct {
	ID          int64
	Certificate record.Certificate
}

// Find returns a certificate by its decimal serial, or [record.ErrNotFound].
func Find(ctx context.Context, q sqldb.Querier, serial string) (found Stored, err error) {
	found.ID, err = Scan(q.QueryRowContext(ctx, `SELECT `+Columns+From+` WHERE c.serial = ?`, serial), &found.Certificate)
	if errors.Is(err, sql.ErrNoRows) {
		return Stored{}, fmt.Errorf("certificate %s: %w", certs.HexSerial(serial), record.ErrNotFound)
	}
	if err != nil {
		return Stored{}, fmt.Errorf("reading certificate %s: %w", serial, err)
	}
	return found, nil
}

// Scan reads a row of [Columns] into c and returns the number of the certificate. An
// error is the driver's, or that of the JSON of the names.
func Scan(row sqldb.Scanner, c *record.Certificate) (id int64, err error) {
	var notBefore, notAfter, issuedAt, proof int64
	var names string
	var keyHash []byte
	var revokedAt, reason sql.NullInt64
	var note, by, address sql.NullString
	var servers, since sql.NullInt64
	if err := row.Scan(&id, &c.Serial, &c.Service, &c.Kind, &c.Provisioner, &c.Caller, &c.Lineage, &c.Previous, &c.Issuer, &keyHash, &names,
		&notBefore, &notAfter, &issuedAt, &proof, &c.DER, &c.Chain, &revokedAt, &reason, &note, &by,
		&address, &servers, &since); err != nil {
		return 0, err
	}
	c.KeyHash = hex.EncodeToString(keyHash)
	c.NotBefore, c.NotAfter, c.IssuedAt = sqldb.FromMillis(notBefore), sqldb.FromMillis(notAfter), sqldb.FromMillis(issuedAt)
	if proof != 0 {
		c.ProofUntil = sqldb.FromMillis(proof)
	}
	if revokedAt.Valid {
		c.Revocation = &record.Revocation{Serial: c.Serial, RevokedAt: sqldb.FromMillis(revokedAt.Int64), Reason: int(reason.Int64), Note: note.String, Caller: by.String}
	}
	if since.Valid {
		c.Served = &record.Delivery{Serial: c.Serial, Lineage: c.Lineage, Address: address.String, Servers: int(servers.Int64), Since: sqldb.FromMillis(since.Int64)}
	}
	return id, json.Unmarshal([]byte(names), &c.Names)
}
