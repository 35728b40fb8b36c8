package store

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
)

// ACME is the part of the record that an ACME server works on, in the types of
// smallstep's. It has no state beside the database: an order that began at one
// replica goes on at another.
//
// Status only goes forward (pending, ready, valid or invalid), whatever two
// requests read before they wrote: an update that comes too late changes nothing
// and returns what is there.
type ACME struct{ s *Store }

// ACME shows the record to an ACME server.
func (s *Store) ACME() *ACME { return &ACME{s} }

// Limits of what strangers leave behind: everybody can make accounts, and the
// oldest that never got a certificate makes room for the next.
const (
	maxUnproven   = 500 // accounts that never got a certificate
	maxUnfinished = 20  // orders of one account

	unprovenLife = 7 * 24 * time.Hour  // of an account that never got a certificate
	provenLife   = 90 * 24 * time.Hour // of one that did, from its last
)

// CreateAccount stores an account under a new id. If the key has one already, by
// a request at the same moment, that one is returned in acc.
func (a *ACME) CreateAccount(ctx context.Context, acc *acme.Account) error {
	keyID, err := acme.KeyToID(acc.Key)
	if err != nil {
		return err
	}
	// The key alone: what else a client writes into its JWK is not ours to keep.
	jwk, err := json.Marshal(jose.JSONWebKey{Key: acc.Key.Key, KeyID: keyID})
	contact, noContact := json.Marshal(acc.Contact)
	if err := errors.Join(err, noContact); err != nil {
		return fmt.Errorf("encoding an account: %w", err)
	}
	err = a.s.change(ctx, func(tx *txn) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO acme_accounts (id, key_id, jwk, contact, status, location, provisioner, created_at, proven_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING`,
			rand.Text(), keyID, string(jwk), string(contact), acc.Status, acc.LocationPrefix, acc.ProvisionerName, millis(time.Now())); err != nil {
			return err
		}
		if err := account(tx.QueryRowContext(ctx, selectAccount+`key_id = ?`, keyID), acc); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM acme_accounts WHERE id IN
			(SELECT id FROM acme_accounts WHERE proven_at = 0 AND id <> ? ORDER BY created_at DESC LIMIT 1000 OFFSET ?)`, acc.ID, maxUnproven-1)
		return err
	})
	if err != nil {
		return fmt.Errorf("creating an account: %w", err)
	}
	return nil
}

// GetAccount returns an account, or acme.ErrNotFound.
func (a *ACME) GetAccount(ctx context.Context, id string) (*acme.Account, error) {
	return a.account(ctx, `id = ?`, id)
}

// GetAccountByKeyID returns the account of a key by its thumbprint, or acme.ErrNotFound.
func (a *ACME) GetAccountByKeyID(ctx context.Context, kid string) (*acme.Account, error) {
	return a.account(ctx, `key_id = ?`, kid)
}

func (a *ACME) account(ctx context.Context, where, arg string) (*acme.Account, error) {
	acc := new(acme.Account)
	err := account(a.s.read.QueryRowContext(ctx, selectAccount+where, arg), acc)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, acme.ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("reading an account: %w", err)
	}
	return acc, nil
}

const selectAccount = `SELECT id, jwk, contact, status, location, provisioner FROM acme_accounts WHERE `

func account(row scanner, acc *acme.Account) error {
	var jwk, contact string
	if err := row.Scan(&acc.ID, &jwk, &contact, &acc.Status, &acc.LocationPrefix, &acc.ProvisionerName); err != nil {
		return err
	}
	acc.Key, acc.Contact = new(jose.JSONWebKey), nil
	return errors.Join(json.Unmarshal([]byte(jwk), acc.Key), json.Unmarshal([]byte(contact), &acc.Contact))
}

// UpdateAccount changes contacts, or deactivates; there is no way back from that.
func (a *ACME) UpdateAccount(ctx context.Context, acc *acme.Account) error {
	contact, err := json.Marshal(acc.Contact)
	if err != nil {
		return fmt.Errorf("encoding contacts: %w", err)
	}
	err = a.s.change(ctx, func(tx *txn) error {
		if _, err := tx.ExecContext(ctx, `UPDATE acme_accounts SET contact = ?, status = ? WHERE id = ? AND status = ?`,
			string(contact), acc.Status, acc.ID, acme.StatusValid); err != nil {
			return err
		}
		return account(tx.QueryRowContext(ctx, selectAccount+`id = ?`, acc.ID), acc)
	})
	if err != nil {
		return fmt.Errorf("updating account %s: %w", acc.ID, err)
	}
	return nil
}

// SweepACME forgets used nonces that expired, orders that are over and accounts
// that nobody used for long. An order with a certificate stays until that ends:
// it says who may revoke it.
func (s *Store) SweepACME(ctx context.Context, now time.Time) error {
	return s.change(ctx, func(tx *txn) error {
		for _, del := range []struct {
			what string
			args []any
		}{
			{`acme_nonces WHERE expires < ?`, []any{millis(now)}},
			{`acme_orders WHERE sweep_at < ?`, []any{millis(now)}},
			{`acme_accounts WHERE proven_at = 0 AND created_at < ?`, []any{millis(now.Add(-unprovenLife))}},
			{`acme_accounts WHERE proven_at > 0 AND proven_at < ? AND NOT EXISTS (SELECT 1 FROM acme_orders o WHERE o.account = acme_accounts.id)`,
				[]any{millis(now.Add(-provenLife))}},
		} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+del.what, del.args...); err != nil {
				return fmt.Errorf("sweeping %.12s: %w", del.what, err)
			}
		}
		return nil
	})
}

// problemJSON keeps an error of ACME as its client sees it; "" for none.
func problemJSON(e *acme.Error) (string, error) {
	if e == nil {
		return "", nil
	}
	b, err := json.Marshal(e)
	return string(b), err
}

func parseProblem(text string) (*acme.Error, error) {
	if text == "" {
		return nil, nil
	}
	e := new(acme.Error)
	return e, json.Unmarshal([]byte(text), e)
}
