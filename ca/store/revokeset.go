package store

import (
	"context"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// RevokeSet revokes all certificates of a selection that are not revoked yet, in one
// transaction, and returns how many. Certificates that the same service gets afterwards, with
// a new token, are not revoked. r.Serial is ignored. If the selection has no certificate,
// the error is [record.ErrNotFound].
func (s *Store) RevokeSet(ctx context.Context, sel record.Selection, r record.Revocation) (n int, err error) {
	err = s.db.Change(ctx, func(tx *sqldb.Txn) (err error) {
		n, err = revokeSet(ctx, tx, sel, r)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("revoking %s%s: %w", sel.Service, sel.Lineage, err)
	}
	return n, nil
}

func revokeSet(ctx context.Context, tx *sqldb.Txn, sel record.Selection, r record.Revocation) (int, error) {
	mark, err := nextMark(ctx, tx)
	if err != nil {
		return 0, err
	}
	service := sel.Service
	if sel.Lineage != "" {
		first, err := certrow.Find(ctx, tx, sel.Lineage)
		if err != nil {
			return 0, err
		}
		service = first.Certificate.Service
	}
	// With the lock no renewal commits. Renewals from before are selected below, later ones
	// see the revocation and are refused.
	if err := lockService(ctx, tx, service); err != nil {
		return 0, err
	}
	set, err := unrevoked(ctx, tx, sel)
	if err != nil {
		return 0, err
	}
	if len(set) == 0 {
		return 0, record.ErrNotFound
	}
	for _, t := range set {
		if err := addRevocation(ctx, tx, newRevocation{t, r, mark}); err != nil {
			return 0, err
		}
	}
	return len(set), nil
}

// Selected returns what RevokeSet would revoke now, in the order of issue. Of
// each certificate Serial, Service, Lineage, Issuer and NotAfter are filled in.
func (s *Store) Selected(ctx context.Context, sel record.Selection) ([]record.Certificate, error) {
	set, err := unrevoked(ctx, s.db.Read, sel)
	if err != nil {
		return nil, fmt.Errorf("selecting certificates: %w", err)
	}
	out := make([]record.Certificate, len(set))
	for i, t := range set {
		out[i] = t.Certificate
	}
	return out, nil
}

func unrevoked(ctx context.Context, q sqldb.Querier, sel record.Selection) ([]certrow.Stored, error) {
	where, arg := ` AND c.service = ?`, sel.Service
	if sel.Lineage != "" {
		where, arg = ` AND c.lineage = ?`, sel.Lineage
	}
	rows, err := q.QueryContext(ctx, `SELECT c.id, c.serial, c.service, c.lineage, i.key_id, c.not_after
		FROM certificates c JOIN issuers i ON i.id = c.issuer
		WHERE c.not_after > ?`+where+` AND NOT EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id) ORDER BY c.id`, millis(sel.Since), arg)
	if err != nil {
		return nil, err
	}
	return sqldb.Collect(rows, func(t *certrow.Stored) error {
		var end int64
		err := rows.Scan(&t.ID, &t.Certificate.Serial, &t.Certificate.Service, &t.Certificate.Lineage, &t.Certificate.Issuer, &end)
		t.Certificate.NotAfter = fromMillis(end)
		return err
	})
}
