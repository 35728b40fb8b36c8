package acmestore

import (
	"context"
	"fmt"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

const selectAuthorization = `SELECT id, account, kind, value, token, status, expires, problem FROM acme_authorizations WHERE `

func authorization(row sqldb.Scanner, az *acme.Authorization) (err error) {
	var problem string
	var expires int64
	if err := row.Scan(&az.ID, &az.AccountID, &az.Identifier.Type, &az.Identifier.Value, &az.Token, &az.Status, &expires, &problem); err != nil {
		return err
	}
	az.ExpiresAt = sqldb.FromMillis(expires)
	az.Error, err = parseProblem(problem)
	return err
}

// GetAuthorization returns an authorization with its challenges, or a malformed problem.
func (s *Store) GetAuthorization(ctx context.Context, id string) (*acme.Authorization, error) {
	az := new(acme.Authorization)
	if err := authorization(s.db.Read.QueryRowContext(ctx, selectAuthorization+`id = ?`, id), az); err != nil {
		return nil, notFoundProblem("authorization", id, err)
	}
	rows, err := s.db.Read.QueryContext(ctx, selectChallenge+`c.authorization_id = ? ORDER BY c.position`, id)
	if err != nil {
		return nil, fmt.Errorf("reading authorization %s: %w", id, err)
	}
	list, err := sqldb.Collect(rows, func(ch *acme.Challenge) error { return challenge(rows, ch) })
	if err != nil {
		return nil, fmt.Errorf("reading authorization %s: %w", id, err)
	}
	for i := range list {
		az.Challenges = append(az.Challenges, &list[i])
	}
	return az, nil
}

// DeactivateAuthorization deactivates an authorization (RFC 8555 §7.5.2), and makes its order
// invalid (RFC 8555 §7.1.6). An authorization that has ended stays as it is.
func (s *Store) DeactivateAuthorization(ctx context.Context, id string) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		res, err := tx.ExecContext(ctx, `UPDATE acme_authorizations SET status = ? WHERE id = ? AND status IN (?, ?)`,
			acme.StatusDeactivated, id, acme.StatusPending, acme.StatusValid)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return endOrders(ctx, tx, condition{orderOf, id}, "an authorization was deactivated")
	})
	if err != nil {
		return fmt.Errorf("deactivating authorization %s: %w", id, err)
	}
	return nil
}

// orderOf is the condition for the order of one authorization.
const orderOf = `id = (SELECT order_id FROM acme_authorizations WHERE id = ?)`

const selectChallenge = `SELECT c.id, c.authorization_id, a.account, a.value, a.token, c.kind, c.status, c.validated_at, c.problem
	FROM acme_challenges c JOIN acme_authorizations a ON a.id = c.authorization_id WHERE `

func challenge(row sqldb.Scanner, ch *acme.Challenge) (err error) {
	var problem string
	if err := row.Scan(&ch.ID, &ch.AuthorizationID, &ch.AccountID, &ch.Value, &ch.Token, &ch.Type, &ch.Status, &ch.ValidatedAt, &problem); err != nil {
		return err
	}
	ch.Error, err = parseProblem(problem)
	return err
}

// GetChallenge returns a challenge of an authorization, or a malformed problem.
func (s *Store) GetChallenge(ctx context.Context, id, authzID string) (*acme.Challenge, error) {
	ch := new(acme.Challenge)
	if err := challenge(s.db.Read.QueryRowContext(ctx, selectChallenge+`c.id = ? AND c.authorization_id = ?`, id, authzID), ch); err != nil {
		return nil, notFoundProblem("challenge", id, err)
	}
	return ch, nil
}

// UpdateChallenge stores the outcome of a pending challenge, and in the same transaction its
// consequences (RFC 8555 §7.1.6). The authorization gets the status of the challenge. The
// order becomes ready with the last valid authorization, or invalid with the first invalid
// one.
func (s *Store) UpdateChallenge(ctx context.Context, ch *acme.Challenge) error {
	problem, err := problemJSON(ch.Error)
	if err != nil {
		return fmt.Errorf("encoding a problem: %w", err)
	}
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		// Two challenges of one order may end at the same moment. Each transaction must see the
		// other, or neither would make the order ready. So each locks the row of the order first.
		if _, err := tx.ExecContext(ctx, `UPDATE acme_orders SET status = status WHERE `+orderOf, ch.AuthorizationID); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE acme_challenges SET status = ?, validated_at = ?, problem = ? WHERE id = ? AND status = ?
			AND EXISTS (SELECT 1 FROM acme_authorizations a WHERE a.id = authorization_id AND a.status = ?)`,
			ch.Status, ch.ValidatedAt, problem, ch.ID, acme.StatusPending, acme.StatusPending)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return follow(ctx, tx, ch, problem)
	})
	if err != nil {
		return fmt.Errorf("updating challenge %s: %w", ch.ID, err)
	}
	now, err := s.GetChallenge(ctx, ch.ID, ch.AuthorizationID)
	if err != nil {
		return err
	}
	ch.Status, ch.ValidatedAt, ch.Error = now.Status, now.ValidatedAt, now.Error
	return nil
}

// follow changes authorization and order after a challenge.
func follow(ctx context.Context, tx *sqldb.Txn, ch *acme.Challenge, problem string) error {
	if _, err := tx.ExecContext(ctx, `UPDATE acme_authorizations SET status = ?, problem = ? WHERE id = ? AND status = ?`,
		ch.Status, problem, ch.AuthorizationID, acme.StatusPending); err != nil {
		return err
	}
	if ch.Status != acme.StatusValid {
		_, err := tx.ExecContext(ctx, `UPDATE acme_orders SET status = ?, problem = ? WHERE status = ? AND `+orderOf,
			acme.StatusInvalid, problem, acme.StatusPending, ch.AuthorizationID)
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE acme_orders SET status = ? WHERE status = ? AND `+orderOf+`
		AND NOT EXISTS (SELECT 1 FROM acme_authorizations a WHERE a.order_id = acme_orders.id AND a.status <> ?)`,
		acme.StatusReady, acme.StatusPending, ch.AuthorizationID, acme.StatusValid)
	return err
}
