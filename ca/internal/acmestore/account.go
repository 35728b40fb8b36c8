package acmestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// Limits of rows, because anybody can make accounts. When there are maxUnproven, the oldest
// account without a certificate and without a recent order is deleted for the next one.
const (
	maxUnproven   = 500 // accounts that never got a certificate
	maxUnfinished = 20  // orders of one account

	unprovenLife = 7 * 24 * time.Hour  // of an account that never got a certificate
	provenLife   = 90 * 24 * time.Hour // of an account since its last certificate, or of a bound one
	orderGrace   = time.Hour           // an account with an order younger than this is not deleted
)

// CreateAccount stores an account under a new id. If another request has made an account for
// the key meanwhile, acc becomes that account.
func (s *Store) CreateAccount(ctx context.Context, acc *acme.Account) error {
	return s.CreateBoundAccount(ctx, acc, "")
}

// CreateBoundAccount is CreateAccount for an account that an external account key binds, if
// eab is not "". The key is marked as used in the same transaction. Errors: [ErrEABGone],
// [ErrTooManyAccounts].
func (s *Store) CreateBoundAccount(ctx context.Context, acc *acme.Account, eab string) error {
	keyID, jwk, err := encodeKey(acc.Key)
	if err != nil {
		return err
	}
	contact, err := json.Marshal(acc.Contact)
	if err != nil {
		return fmt.Errorf("encoding contacts: %w", err)
	}
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		now := time.Now()
		res, err := tx.ExecContext(ctx, `INSERT INTO acme_accounts (id, key_id, jwk, contact, status, location, provisioner, created_at, proven_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING`,
			rand.Text(), keyID, jwk, string(contact), acc.Status, acc.LocationPrefix, acc.ProvisionerName, sqldb.Millis(now))
		if err != nil {
			return err
		}
		added, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if err := scanAccount(tx.QueryRowContext(ctx, selectAccount+`key_id = ?`, keyID), acc); err != nil {
			return err
		}
		if eab != "" {
			return bind(ctx, tx, record.EABKey{ID: eab, Account: acc.ID, Bound: now})
		}
		if added == 0 {
			return nil
		}
		return makeRoom(ctx, tx, acc.ID, now)
	})
	if err != nil {
		return fmt.Errorf("creating an account: %w", err)
	}
	return nil
}

// encodeKey returns the thumbprint of a key, and its JWK without any other member that the
// client has put there.
func encodeKey(key *jose.JSONWebKey) (id, jwk string, err error) {
	if id, err = acme.KeyToID(key); err != nil {
		return "", "", fmt.Errorf("naming a key: %w", err)
	}
	b, err := json.Marshal(jose.JSONWebKey{Key: key.Key, KeyID: id})
	if err != nil {
		return "", "", fmt.Errorf("encoding a key: %w", err)
	}
	return id, string(b), nil
}

// makeRoom keeps the number of accounts without a certificate within its limit.
func makeRoom(ctx context.Context, tx *sqldb.Txn, newest string, now time.Time) error {
	const unproven = `acme_accounts WHERE proven_at = 0 AND eab = ''`
	var n int64
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM `+unproven).Scan(&n); err != nil || n <= maxUnproven {
		return err
	}
	res, err := tx.ExecContext(ctx, `DELETE FROM acme_accounts WHERE id IN (SELECT id FROM `+unproven+` AND id <> ?
		AND NOT EXISTS (SELECT 1 FROM acme_orders o WHERE o.account = acme_accounts.id AND o.created_at > ? AND o.status IN (?, ?))
		ORDER BY created_at LIMIT ?)`,
		newest, sqldb.Millis(now.Add(-orderGrace)), acme.StatusPending, acme.StatusReady, n-maxUnproven)
	if err != nil {
		return err
	}
	if gone, err := res.RowsAffected(); err != nil || gone < n-maxUnproven {
		return errors.Join(err, ErrTooManyAccounts)
	}
	return nil
}

// ChangeKey gives an account another key (RFC 8555 §7.3.5). A key that another
// account has is [KeyInUseError]; an account that meanwhile has another key than
// from, or is not active, is acme.ErrNotFound.
func (s *Store) ChangeKey(ctx context.Context, id string, from, to *jose.JSONWebKey) error {
	old, _, err := encodeKey(from)
	if err != nil {
		return err
	}
	next, jwk, err := encodeKey(to)
	if err != nil {
		return err
	}
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		var other string
		err := tx.QueryRowContext(ctx, `SELECT id FROM acme_accounts WHERE key_id = ?`, next).Scan(&other)
		if err == nil {
			return &KeyInUseError{other}
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE acme_accounts SET key_id = ?, jwk = ? WHERE id = ? AND key_id = ? AND status = ?`,
			next, jwk, id, old, acme.StatusValid)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, acme.ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("changing the key of account %s: %w", id, err)
	}
	return nil
}

// GetAccount returns an account, or acme.ErrNotFound.
func (s *Store) GetAccount(ctx context.Context, id string) (*acme.Account, error) {
	return s.accountWhere(ctx, `id = ?`, id)
}

// GetAccountByKeyID returns the account of a key by its thumbprint, or acme.ErrNotFound.
func (s *Store) GetAccountByKeyID(ctx context.Context, kid string) (*acme.Account, error) {
	return s.accountWhere(ctx, `key_id = ?`, kid)
}

func (s *Store) accountWhere(ctx context.Context, where, arg string) (*acme.Account, error) {
	acc := new(acme.Account)
	err := scanAccount(s.db.Read.QueryRowContext(ctx, selectAccount+where, arg), acc)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, acme.ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("reading an account: %w", err)
	}
	return acc, nil
}

const selectAccount = `SELECT id, jwk, contact, status, location, provisioner FROM acme_accounts WHERE `

func scanAccount(row sqldb.Scanner, acc *acme.Account) error {
	var jwk, contact string
	if err := row.Scan(&acc.ID, &jwk, &contact, &acc.Status, &acc.LocationPrefix, &acc.ProvisionerName); err != nil {
		return err
	}
	acc.Key, acc.Contact = new(jose.JSONWebKey), nil
	return errors.Join(json.Unmarshal([]byte(jwk), acc.Key), json.Unmarshal([]byte(contact), &acc.Contact))
}

// UpdateAccount changes contacts, or deactivates the account, which cannot be undone. Its
// pending and ready orders become invalid then (RFC 8555 §7.3.6).
func (s *Store) UpdateAccount(ctx context.Context, acc *acme.Account) error {
	contact, err := json.Marshal(acc.Contact)
	if err != nil {
		return fmt.Errorf("encoding contacts: %w", err)
	}
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if _, err := tx.ExecContext(ctx, `UPDATE acme_accounts SET contact = ?, status = ? WHERE id = ? AND status = ?`,
			string(contact), acc.Status, acc.ID, acme.StatusValid); err != nil {
			return err
		}
		if acc.Status == acme.StatusDeactivated {
			if err := endOrders(ctx, tx, condition{`account = ?`, acc.ID}, "the account was deactivated"); err != nil {
				return err
			}
		}
		return scanAccount(tx.QueryRowContext(ctx, selectAccount+`id = ?`, acc.ID), acc)
	})
	if err != nil {
		return fmt.Errorf("updating account %s: %w", acc.ID, err)
	}
	return nil
}
