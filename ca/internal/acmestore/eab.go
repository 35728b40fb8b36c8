package acmestore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// External account keys (RFC 8555 §7.3.4). The operator makes a key and gives it to somebody
// outside of ACME. The first account that proves it by a MAC is bound to it. The secret is in
// the record in cleartext, because verifying a MAC needs it, until the key is used or
// revoked. Then it is deleted.

const eabSecret = 32 // bytes, the length of the MAC of HS256 (RFC 7518 §3.2)

// newEABSecret returns a random secret whose base64url form does not begin with a hyphen,
// because certbot would take it for an option.
func newEABSecret() []byte {
	for {
		secret := make([]byte, eabSecret)
		_, _ = rand.Read(secret) // it never fails
		if base64.RawURLEncoding.EncodeToString(secret)[0] != '-' {
			return secret
		}
	}
}

// NewEABKey stores a key under a new id and returns its secret. This is the only time that the
// secret is shown. The event is in the same transaction.
func (s *Store) NewEABKey(ctx context.Context, caller string, k record.EABKey) (record.EABKey, []byte, error) {
	k.ID = rand.Text()
	secret := newEABSecret()
	profiles, err := json.Marshal(k.Profiles)
	if err != nil {
		return k, nil, fmt.Errorf("encoding profiles: %w", err)
	}
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO acme_eab_keys (id, secret, profiles, note, created_at, expires, account, bound_at, revoked_at)
			VALUES (?, ?, ?, ?, ?, ?, '', 0, 0)`, k.ID, secret, string(profiles), k.Note, sqldb.Millis(k.Created), sqldb.Millis(k.Expires))
		if err != nil {
			return err
		}
		return tellOfEAB(ctx, tx, record.Event{At: k.Created, Caller: caller, Detail: fmt.Sprintf("key %s made for profiles %s", k.ID, profiles)})
	})
	if err != nil {
		return k, nil, fmt.Errorf("storing an external account key: %w", err)
	}
	return k, secret, nil
}

// EABKeys lists all keys, the oldest first.
func (s *Store) EABKeys(ctx context.Context) ([]record.EABKey, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT `+eabColumns+` FROM acme_eab_keys k ORDER BY k.created_at, k.id`)
	if err != nil {
		return nil, fmt.Errorf("listing external account keys: %w", err)
	}
	list, err := sqldb.Collect(rows, func(k *record.EABKey) error { return eabKey(rows, k) })
	if err != nil {
		return nil, fmt.Errorf("listing external account keys: %w", err)
	}
	return list, nil
}

// RevokeEABKey revokes a key. The account that is bound to it can order nothing more. A key
// that is unknown or was revoked before is [record.ErrNotFound].
func (s *Store) RevokeEABKey(ctx context.Context, caller, id string, now time.Time) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		res, err := tx.ExecContext(ctx, `UPDATE acme_eab_keys SET revoked_at = ?, secret = ? WHERE id = ? AND revoked_at = 0`, sqldb.Millis(now), []byte{}, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, record.ErrNotFound)
		}
		return tellOfEAB(ctx, tx, record.Event{At: now, Caller: caller, Detail: fmt.Sprintf("key %s revoked", id)})
	})
	if err != nil {
		return fmt.Errorf("revoking external account key %.64q: %w", id, err)
	}
	return nil
}

// EABSecret returns the secret of a key that can still bind an account, or [ErrEABGone].
func (s *Store) EABSecret(ctx context.Context, id string) (secret []byte, err error) {
	err = s.db.Read.QueryRowContext(ctx, `SELECT secret FROM acme_eab_keys WHERE id = ? AND account = '' AND revoked_at = 0 AND expires > ?`,
		id, sqldb.Millis(time.Now())).Scan(&secret)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrEABGone
	case err != nil:
		return nil, fmt.Errorf("reading an external account key: %w", err)
	}
	return secret, nil
}

// Binding returns the key that an account is bound to. ok is false if there is none.
func (s *Store) Binding(ctx context.Context, account string) (k record.EABKey, ok bool, err error) {
	err = eabKey(s.db.Read.QueryRowContext(ctx, `SELECT `+eabColumns+` FROM acme_accounts a JOIN acme_eab_keys k ON k.id = a.eab WHERE a.id = ?`, account), &k)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return k, false, nil
	case err != nil:
		return k, false, fmt.Errorf("reading the binding of an account: %w", err)
	}
	return k, true, nil
}

// bind marks a key as used by an account, in the transaction that makes the account.
func bind(ctx context.Context, tx *sqldb.Txn, k record.EABKey) error {
	for _, change := range []struct {
		text string
		args []any
	}{
		{`UPDATE acme_eab_keys SET account = ?, bound_at = ?, secret = ? WHERE id = ? AND account = '' AND revoked_at = 0 AND expires > ?`,
			[]any{k.Account, sqldb.Millis(k.Bound), []byte{}, k.ID, sqldb.Millis(k.Bound)}},
		{`UPDATE acme_accounts SET eab = ? WHERE id = ? AND eab = ''`, []any{k.ID, k.Account}},
	} {
		res, err := tx.ExecContext(ctx, change.text, change.args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, ErrEABGone)
		}
	}
	return tellOfEAB(ctx, tx, record.Event{At: k.Bound, Caller: "acme " + k.Account, Detail: fmt.Sprintf("key %s bound account %s", k.ID, k.Account)})
}

func tellOfEAB(ctx context.Context, tx *sqldb.Txn, e record.Event) error {
	e.Kind = kinds.EABChanged
	_, err := eventlog.Append(ctx, tx, e, [sha256.Size]byte{})
	return err
}

const eabColumns = `k.id, k.profiles, k.note, k.created_at, k.expires, k.account, k.bound_at, k.revoked_at`

func eabKey(row sqldb.Scanner, k *record.EABKey) error {
	var profiles string
	var created, expires, bound, revoked int64
	if err := row.Scan(&k.ID, &profiles, &k.Note, &created, &expires, &k.Account, &bound, &revoked); err != nil {
		return err
	}
	k.Created, k.Expires, k.Bound, k.Revoked = sqldb.FromMillis(created), sqldb.FromMillis(expires), momentOf(bound), momentOf(revoked)
	return json.Unmarshal([]byte(profiles), &k.Profiles)
}

// momentOf returns the time of a column. 0 stands for the zero time.
func momentOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return sqldb.FromMillis(ms)
}
