package acmestore

import (
	"context"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// Sweep deletes used nonces that have expired, orders that have ended, accounts that were not
// used for unprovenLife or provenLife, and expired external account keys. An order with a
// certificate stays until the certificate ends, because it says which account may revoke it.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	return s.db.Change(ctx, func(tx *sqldb.Txn) error {
		for _, del := range []struct {
			what string
			args []any
		}{
			{`acme_nonces WHERE expires < ?`, []any{sqldb.Millis(now)}},
			{`acme_orders WHERE sweep_at < ?`, []any{sqldb.Millis(now)}},
			{`acme_accounts WHERE proven_at = 0 AND eab = '' AND created_at < ?`, []any{sqldb.Millis(now.Add(-unprovenLife))}},
			{`acme_accounts WHERE (proven_at > 0 OR eab <> '') AND proven_at < ? AND created_at < ? AND NOT EXISTS (SELECT 1 FROM acme_orders o WHERE o.account = acme_accounts.id)`,
				[]any{sqldb.Millis(now.Add(-provenLife)), sqldb.Millis(now.Add(-provenLife))}},
			{`acme_eab_keys WHERE expires < ? AND created_at < ? AND NOT EXISTS (SELECT 1 FROM acme_accounts a WHERE a.id = acme_eab_keys.account)`,
				[]any{sqldb.Millis(now), sqldb.Millis(now.Add(-provenLife))}},
		} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+del.what, del.args...); err != nil {
				return fmt.Errorf("sweeping %.12s: %w", del.what, err)
			}
		}
		return nil
	})
}
