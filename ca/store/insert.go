package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// certificateRow is a certificate in the form of the tables.
type certificateRow struct {
	issue   Issuance
	names   string // JSON
	keyHash []byte
	sum     [sha256.Size]byte // of the chain
	subject [sha256.Size]byte // of all of it, for the log

	issuer, chain int64 // numbers in the tables of these names
	known         bool  // both are from cachedIDs
}

func newRow(issue Issuance) (*certificateRow, error) {
	c := issue.Certificate
	names, err := json.Marshal(c.Names)
	if err != nil {
		return nil, err
	}
	keyHash, err := hex.DecodeString(c.KeyHash)
	if err != nil || len(keyHash) != sha256.Size {
		return nil, fmt.Errorf("key hash %.80q: not a SHA-256 in hex", c.KeyHash)
	}
	return &certificateRow{issue: issue, names: string(names), keyHash: keyHash, sum: sha256.Sum256(c.Chain), subject: eventlog.CertificateDigest(&c)}, nil
}

// cachedIDs fills in the ids of issuer and chain, if an earlier commit found them.
func (s *Store) cachedIDs(r *certificateRow) {
	issuer, one := s.issuers.Load(r.issue.Certificate.Issuer)
	chain, both := s.chains.Load(r.sum)
	if r.known = one && both; r.known {
		r.issuer, r.chain = issuer.(int64), chain.(int64)
	}
}

// cacheIDs keeps the ids of issuer and chain. Call it after the commit only: the id of
// a row that was rolled back may be given to another row.
func (s *Store) cacheIDs(r *certificateRow) {
	s.issuers.Store(r.issue.Certificate.Issuer, r.issuer)
	s.chains.Store(r.sum, r.chain)
}

func (r *certificateRow) insert(ctx context.Context, tx *sqldb.Txn) error {
	c := r.issue.Certificate
	// The token comes first: a client that sends it again gets its certificate again, even if
	// a limit allows no further certificate.
	if err := spend(ctx, tx, r.issue.Token, c.Serial); err != nil {
		return err
	}
	enter := r.begin
	if c.Lineage != c.Serial {
		enter = r.join
	}
	if err := enter(ctx, tx); err != nil {
		return err
	}
	if err := r.checkLiveLimit(ctx, tx); err != nil {
		return err
	}
	if err := r.intern(ctx, tx); err != nil {
		return err
	}
	var id int64
	err := tx.QueryRowContext(ctx, `INSERT INTO certificates
		(serial, service, kind, provisioner, caller, lineage, previous, issuer, chain, key_hash, names, not_before, not_after, issued_at, proof_until, der)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		c.Serial, c.Service, c.Kind, c.Provisioner, c.Caller, c.Lineage, c.Previous, r.issuer, r.chain, r.keyHash, r.names,
		millis(c.NotBefore), millis(c.NotAfter), millis(c.IssuedAt), millisOrZero(c.ProofUntil), c.DER).Scan(&id)
	if err != nil {
		return fmt.Errorf("inserting the certificate: %w", err)
	}
	if err := insertNames(ctx, tx, id, c); err != nil {
		return err
	}
	if r.issue.Order != "" {
		if err := finishOrder(ctx, tx, r.issue.Order, c); err != nil {
			return err
		}
	}
	if report := r.issue.Report; report.Digest != "" {
		// The certificate that was renewed is the one that the client has shown.
		report.Lineage, report.Serial, report.Successor = c.Lineage, c.Previous, c.Serial
		if err := truststore.WriteReport(ctx, tx, report); err != nil {
			return err
		}
	}
	_, err = eventlog.Append(ctx, tx, record.Event{At: c.IssuedAt, Kind: c.Kind, Caller: c.Caller, Service: c.Service, Serial: c.Serial}, r.subject)
	return err
}

// Statuses of an order in its table (RFC 8555 §7.1.6). Package acmestore writes the others.
const (
	orderReady = "ready"
	orderValid = "valid"
)

// finishOrder gives an order its certificate, in the transaction that records it.
func finishOrder(ctx context.Context, tx *sqldb.Txn, order string, c record.Certificate) error {
	res, err := tx.ExecContext(ctx, `UPDATE acme_orders SET status = ?, certificate = ?, sweep_at = ? WHERE id = ? AND status = ? AND expires > ?`,
		orderValid, c.Serial, sqldb.Millis(c.NotAfter), order, orderReady, sqldb.Millis(c.IssuedAt))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, ErrOrderGone)
	}
	_, err = tx.ExecContext(ctx, `UPDATE acme_accounts SET proven_at = ? WHERE id = (SELECT account FROM acme_orders WHERE id = ?)`,
		sqldb.Millis(c.IssuedAt), order)
	return err
}

// begin is join for the first certificate of a lineage, which can neither be revoked nor be
// full.
func (r *certificateRow) begin(ctx context.Context, tx *sqldb.Txn) error {
	if r.issue.TrustVersion == 0 {
		return nil
	}
	if err := truststore.LockIssuing(ctx, tx); err != nil {
		return err
	}
	var version int64
	if err := tx.QueryRowContext(ctx, `SELECT `+truststore.Current).Scan(&version); err != nil {
		return fmt.Errorf("reading the version of the trust: %w", err)
	}
	if version != r.issue.TrustVersion {
		return ErrTrustChanged
	}
	return nil
}

// joinText asks whether a lineage was revoked, counts its live certificates up to a
// number, and reads the version of the trust. It is one statement, because each one is a round trip to PostgreSQL. The count
// includes revoked certificates, since a lineage with one is refused anyway.
const joinText = `SELECT EXISTS (SELECT 1 FROM revocations WHERE lineage = ?),
	(SELECT COUNT(*) FROM (SELECT 1 FROM certificates WHERE lineage = ? AND not_after > ? LIMIT ?) AS counted),
	` + truststore.Current

// join returns an error if the lineage of a renewal was revoked, or has as many live
// certificates as it may have. It takes the lock in a statement of its own before: a
// statement of PostgreSQL sees only what was committed before the statement began.
func (r *certificateRow) join(ctx context.Context, tx *sqldb.Txn) error {
	c := r.issue.Certificate
	if err := lockLineage(ctx, tx, c.Service, c.Lineage); err != nil {
		return err
	}
	var gone bool
	var n int
	var version int64
	if err := tx.QueryRowContext(ctx, joinText, c.Lineage, c.Lineage, millis(c.IssuedAt), r.issue.MaxLineage).Scan(&gone, &n, &version); err != nil {
		return fmt.Errorf("looking up lineage %s: %w", c.Lineage, err)
	}
	switch {
	case r.issue.TrustVersion != 0 && r.issue.TrustVersion != version:
		return ErrTrustChanged
	case gone:
		return ErrRevoked
	case r.issue.MaxLineage > 0 && n >= r.issue.MaxLineage:
		return ErrLineageFull
	}
	return nil
}

// checkLiveLimit refuses a new lineage beyond the limit of its service. Renewals are not
// refused, because that would stop a service that runs.
func (r *certificateRow) checkLiveLimit(ctx context.Context, tx *sqldb.Txn) error {
	c := r.issue.Certificate
	if r.issue.MaxLive <= 0 || c.Kind != kinds.Issued { // a certificate by X5C is of kind issued too
		return nil
	}
	n, err := countLive(ctx, tx, liveCount{c.Service, c.IssuedAt, r.issue.MaxLive})
	if err == nil && n >= r.issue.MaxLive {
		return ErrTooMany
	}
	return err
}

// insertNames writes all names in one statement: a certificate has few, and a statement costs
// more than a row.
func insertNames(ctx context.Context, tx *sqldb.Txn, id int64, c record.Certificate) error {
	if len(c.Names) == 0 {
		return nil
	}
	args := make([]any, 0, 3*len(c.Names))
	for _, name := range c.Names {
		args = append(args, name, millis(c.NotAfter), id)
	}
	marks := strings.TrimSuffix(strings.Repeat(`(?, ?, ?), `, len(c.Names)), `, `)
	if _, err := tx.ExecContext(ctx, `INSERT INTO certificate_names (name, not_after, id) VALUES `+marks+` ON CONFLICT DO NOTHING`, args...); err != nil {
		return fmt.Errorf("inserting the names: %w", err)
	}
	return nil
}

// intern finds the ids of issuer and chain, and adds their rows if they are new.
func (r *certificateRow) intern(ctx context.Context, tx *sqldb.Txn) (err error) {
	if r.known {
		return nil
	}
	c := r.issue.Certificate
	r.issuer, err = internID(ctx, tx, internTexts{
		find: `SELECT id FROM issuers WHERE key_id = ?`,
		add:  `INSERT INTO issuers (key_id) VALUES (?) ON CONFLICT DO NOTHING`,
	}, c.Issuer)
	if err != nil {
		return fmt.Errorf("numbering the issuer: %w", err)
	}
	r.chain, err = internID(ctx, tx, internTexts{
		find: `SELECT id FROM chains WHERE hash = ?`,
		add:  `INSERT INTO chains (hash, der) VALUES (?, ?) ON CONFLICT DO NOTHING`,
	}, r.sum[:], notNil(c.Chain))
	if err != nil {
		return fmt.Errorf("numbering the chain: %w", err)
	}
	return nil
}

type internTexts struct{ find, add string }

// internID returns the id of a row, which it finds by the first column, and adds the
// row if there is none. Another process may add it at the same time; then the second
// query finds that one.
func internID(ctx context.Context, tx *sqldb.Txn, texts internTexts, columns ...any) (id int64, err error) {
	find := func() error { return tx.QueryRowContext(ctx, texts.find, columns[0]).Scan(&id) }
	if err = find(); !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	if _, err := tx.ExecContext(ctx, texts.add, columns...); err != nil {
		return 0, err
	}
	return id, find()
}

// notNil keeps an empty chain (an issuer that is a root) from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
