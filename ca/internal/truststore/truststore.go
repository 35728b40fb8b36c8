// Package truststore keeps the trust of the authority in the record: the signed documents of
// package trust, the CA certificates that they name, and who holds a certificate under which.
//
//	s := truststore.New(db)
//	version, err := s.Newest(ctx)
//	err := s.Change(ctx, truststore.NextVersion{Version: version.Number + 1, Document: signed, Rows: rows, Event: e, Decide: allowed})
//
// It neither signs nor verifies: the caller has the key of the log.
//
// Invariants:
//
//   - A version is stored once. Of two processes that make the same version, one fails with
//     [ErrChanged] (TestOneChangeWins).
//   - Decide sees every certificate that was committed under an older version, and none is
//     committed under an older version afterwards (TestReplicasFollowARotation in ca).
//   - The report of a process that lags is not overwritten by one of another process with a
//     copy of the certificate, and a lineage has a bounded number of rows (TestReports).
//   - A version, the rows that it names and its event are one transaction (TestTrustCrashes
//     in cmd/artstore-pki).
package truststore

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// Errors of [Store.Change] after which the caller decides again.
var (
	// ErrChanged reports that another process has changed the trust meanwhile.
	ErrChanged = errors.New("the trust was changed by another process")
	// ErrInUse reports that an intermediate of [NextVersion.Retires] has an unexpired certificate.
	ErrInUse = errors.New("an intermediate that would be retired has an unexpired certificate")
)

// Store is the part of a record that is about trust.
type Store struct{ db *sqldb.DB }

// New returns the store in an open database.
func New(db *sqldb.DB) *Store { return &Store{db: db} }

// Version is one document.
type Version struct {
	Number   int64  // 0: the record has none yet
	Document []byte // signed
}

// Newest returns the newest version, or the zero value if the record has none.
func (s *Store) Newest(ctx context.Context) (v Version, err error) {
	err = s.db.Read.QueryRowContext(ctx, `SELECT version, document FROM trust_versions ORDER BY version DESC LIMIT 1`).Scan(&v.Number, &v.Document)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("reading the trust: %w", err)
	}
	return v, nil
}

// maxVersions is how many versions [Store.Versions] returns at most. A service that reports a
// bundle from before these counts as one that reports an unknown bundle.
const maxVersions = 200

// Versions returns the newest versions, the newest first.
func (s *Store) Versions(ctx context.Context) ([]Version, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT version, document FROM trust_versions ORDER BY version DESC LIMIT ?`, maxVersions)
	if err != nil {
		return nil, fmt.Errorf("reading the versions of the trust: %w", err)
	}
	return sqldb.Collect(rows, func(v *Version) error { return rows.Scan(&v.Number, &v.Document) })
}

// Row is a CA certificate, and what a replica needs beside it.
type Row struct {
	Fingerprint string
	Certificate []byte // DER
	SealedKey   []byte // empty: of a root, or the key is in a device
	CRL         []byte // of a root, DER; empty if there is none
}

// Row returns a CA certificate by its fingerprint, or [record.ErrNotFound].
func (s *Store) Row(ctx context.Context, fingerprint string) (Row, error) {
	r := Row{Fingerprint: fingerprint}
	err := s.db.Read.QueryRowContext(ctx, `SELECT certificate, sealed_key, crl FROM authorities WHERE fingerprint = ?`, fingerprint).
		Scan(&r.Certificate, &r.SealedKey, &r.CRL)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("CA certificate %.16s: %w", fingerprint, record.ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("reading CA certificate %.16s: %w", fingerprint, err)
	}
	return r, nil
}

// NextVersion is one change of the trust.
type NextVersion struct {
	Version
	Rows []Row // new ones, and roots whose list has changed
	// Event tells of the change; its kind is [kinds.TrustChanged].
	Event record.Event
	// Enters says that this is no change: a record without any version gets the trust that is
	// in effect already, and no event.
	Enters bool
	// Retires are the intermediates, by subject key id, that the version names no more because
	// they have no unexpired certificate. If one has got some meanwhile, the error is [ErrInUse].
	Retires []string
	// Decide, if set, is asked before anything is written. Its error undoes the change.
	Decide func([]Holding) error
}

// Change stores the next version, see [NextVersion]. If there is one with its number or a higher
// one already, the error is [ErrChanged].
func (s *Store) Change(ctx context.Context, c NextVersion) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if tx.Concurrent {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(?::int, 0)`, sqldb.TrustLock); err != nil {
				return err
			}
		}
		var newest int64
		if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM trust_versions`).Scan(&newest); err != nil {
			return err
		}
		if newest >= c.Number {
			return ErrChanged
		}
		for _, issuer := range c.Retires {
			used, err := unexpired(ctx, tx, issuer, c.Event.At)
			if err != nil {
				return err
			}
			if used {
				return ErrInUse
			}
		}
		if c.Decide != nil {
			held, err := holdings(ctx, tx, c.Event.At)
			if err == nil {
				err = c.Decide(held)
			}
			if err != nil {
				return err
			}
		}
		if err := c.write(ctx, tx); err != nil {
			return err
		}
		return tx.Notify(ctx)
	})
	if err != nil {
		return fmt.Errorf("storing the next version: %w", err)
	}
	return nil
}

// unexpired reports whether an issuer (subject key id, hex) has any certificate that has not
// expired, revoked or not.
func unexpired(ctx context.Context, q sqldb.Querier, issuer string, now time.Time) (found bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM certificates WHERE issuer = (SELECT id FROM issuers WHERE key_id = ?) AND not_after > ?)`,
		issuer, sqldb.Millis(now)).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("looking for certificates of %s: %w", issuer, err)
	}
	return found, nil
}

// Unexpired reports whether an intermediate (subject key id, hex) still needs a revocation list:
// it has a certificate that has not expired.
func (s *Store) Unexpired(ctx context.Context, issuer string, now time.Time) (bool, error) {
	return unexpired(ctx, s.db.Read, issuer, now)
}

func (c NextVersion) write(ctx context.Context, tx *sqldb.Txn) error {
	for _, r := range c.Rows {
		const text = `INSERT INTO authorities (fingerprint, certificate, sealed_key, crl) VALUES (?, ?, ?, ?)
			ON CONFLICT (fingerprint) DO UPDATE SET crl = excluded.crl`
		if _, err := tx.ExecContext(ctx, text, r.Fingerprint, notNil(r.Certificate), notNil(r.SealedKey), notNil(r.CRL)); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO trust_versions (version, document, at) VALUES (?, ?, ?)`,
		c.Number, string(c.Document), sqldb.Millis(c.Event.At)); err != nil {
		return err
	}
	if c.Enters {
		return nil
	}
	e := c.Event
	e.Kind = kinds.TrustChanged
	_, err := eventlog.Append(ctx, tx, e, [sha256.Size]byte{})
	return err
}

// notNil keeps an absent value from becoming NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Held is the condition for certificates that services hold, for statements that call them c. Its
// argument is a moment: then they had not expired, and they are not revoked now. The own
// certificate of the authority is not among them, because the authority replaces it by itself,
// and neither is one that was entered only to be revoked.
const Held = `c.not_after > ? AND c.kind NOT IN ('` + kinds.SelfIssued + `', '` + kinds.Entered + `')
	AND NOT EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id)`

// Holding is a certificate that a service holds, and what is known of its holder. Of the
// certificate Serial, Service, Lineage, Names, Issuer and the times are filled in.
type Holding struct {
	record.Certificate
	// Reports are those of the lineage that count, see [Counting]. None: nobody has reported.
	Reports []record.TrustReport
}

// Holdings returns the certificates that services hold (see [Held]) by lineage, and the oldest
// of a lineage first.
func (s *Store) Holdings(ctx context.Context, now time.Time) ([]Holding, error) {
	list, err := holdings(ctx, s.db.Read, now)
	if err != nil {
		return nil, fmt.Errorf("reading who holds certificates: %w", err)
	}
	return list, nil
}

func holdings(ctx context.Context, q sqldb.Querier, now time.Time) ([]Holding, error) {
	said, err := reports(ctx, q, now)
	if err != nil {
		return nil, err
	}
	for lineage, list := range said {
		said[lineage] = Counting(list)
	}
	rows, err := q.QueryContext(ctx, `SELECT c.service, c.lineage, c.serial, c.names, i.key_id, c.not_before, c.not_after, c.issued_at
		FROM certificates c JOIN issuers i ON i.id = c.issuer
		WHERE `+Held+` ORDER BY c.lineage, c.id`, sqldb.Millis(now))
	if err != nil {
		return nil, err
	}
	return sqldb.Collect(rows, func(h *Holding) error {
		var names string
		var notBefore, notAfter, issued int64
		if err := rows.Scan(&h.Service, &h.Lineage, &h.Serial, &names, &h.Issuer, &notBefore, &notAfter, &issued); err != nil {
			return err
		}
		h.NotBefore, h.NotAfter, h.IssuedAt = sqldb.FromMillis(notBefore), sqldb.FromMillis(notAfter), sqldb.FromMillis(issued)
		h.Reports = said[h.Lineage]
		return json.Unmarshal([]byte(names), &h.Names)
	})
}

// LockIssuing lets a change of the trust and the transaction of somebody who signs wait for
// each other. The version is read afterwards, in a statement of its own.
func LockIssuing(ctx context.Context, tx *sqldb.Txn) error {
	if !tx.Concurrent {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock_shared(?::int, 0)`, sqldb.TrustLock); err != nil {
		return fmt.Errorf("locking the trust: %w", err)
	}
	return nil
}

// Current is a subquery for the version in effect, for statements of other packages.
const Current = `(SELECT COALESCE(MAX(version), 0) FROM trust_versions)`
