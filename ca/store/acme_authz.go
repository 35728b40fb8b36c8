package store

import (
	"context"
	"fmt"

	"github.com/smallstep/certificates/acme"
)

const selectAuthorization = `SELECT id, account, kind, value, token, status, expires, problem FROM acme_authorizations WHERE `

func authorization(row scanner, az *acme.Authorization) (err error) {
	var problem string
	var expires int64
	if err := row.Scan(&az.ID, &az.AccountID, &az.Identifier.Type, &az.Identifier.Value, &az.Token, &az.Status, &expires, &problem); err != nil {
		return err
	}
	az.ExpiresAt = fromMillis(expires)
	az.Error, err = parseProblem(problem)
	return err
}

// GetAuthorization returns an authorization with its challenges, or a malformed problem.
func (a *ACME) GetAuthorization(ctx context.Context, id string) (*acme.Authorization, error) {
	az := new(acme.Authorization)
	if err := authorization(a.s.read.QueryRowContext(ctx, selectAuthorization+`id = ?`, id), az); err != nil {
		return nil, absent("authorization", id, err)
	}
	rows, err := a.s.read.QueryContext(ctx, selectChallenge+`c.authorization_id = ? ORDER BY c.position`, id)
	if err != nil {
		return nil, fmt.Errorf("reading authorization %s: %w", id, err)
	}
	list, err := collect(rows, func(ch *acme.Challenge) error { return challenge(rows, ch) })
	if err != nil {
		return nil, fmt.Errorf("reading authorization %s: %w", id, err)
	}
	for i := range list {
		az.Challenges = append(az.Challenges, &list[i])
	}
	return az, nil
}

// GetAuthorizationsByAccountID returns the authorizations of an account, without challenges.
func (a *ACME) GetAuthorizationsByAccountID(ctx context.Context, accountID string) (out []*acme.Authorization, err error) {
	rows, err := a.s.read.QueryContext(ctx, selectAuthorization+`account = ? ORDER BY expires`, accountID)
	if err != nil {
		return nil, fmt.Errorf("reading authorizations: %w", err)
	}
	list, err := collect(rows, func(az *acme.Authorization) error { return authorization(rows, az) })
	for i := range list {
		out = append(out, &list[i])
	}
	return out, err
}

// UpdateAuthorization moves a pending authorization on.
func (a *ACME) UpdateAuthorization(ctx context.Context, az *acme.Authorization) error {
	problem, err := problemJSON(az.Error)
	if err != nil {
		return fmt.Errorf("encoding a problem: %w", err)
	}
	if err := a.update(ctx, `UPDATE acme_authorizations SET status = ?, problem = ? WHERE id = ? AND status = ?`,
		az.Status, problem, az.ID, acme.StatusPending); err != nil {
		return fmt.Errorf("updating authorization %s: %w", az.ID, err)
	}
	now, err := a.GetAuthorization(ctx, az.ID)
	if err != nil {
		return err
	}
	az.Status, az.Error = now.Status, now.Error
	return nil
}

const selectChallenge = `SELECT c.id, c.authorization_id, a.account, a.value, a.token, c.kind, c.status, c.validated_at, c.problem
	FROM acme_challenges c JOIN acme_authorizations a ON a.id = c.authorization_id WHERE `

func challenge(row scanner, ch *acme.Challenge) (err error) {
	var problem string
	if err := row.Scan(&ch.ID, &ch.AuthorizationID, &ch.AccountID, &ch.Value, &ch.Token, &ch.Type, &ch.Status, &ch.ValidatedAt, &problem); err != nil {
		return err
	}
	ch.Error, err = parseProblem(problem)
	return err
}

// GetChallenge returns a challenge of an authorization, or a malformed problem.
func (a *ACME) GetChallenge(ctx context.Context, id, authzID string) (*acme.Challenge, error) {
	ch := new(acme.Challenge)
	if err := challenge(a.s.read.QueryRowContext(ctx, selectChallenge+`c.id = ? AND c.authorization_id = ?`, id, authzID), ch); err != nil {
		return nil, absent("challenge", id, err)
	}
	return ch, nil
}

// UpdateChallenge keeps the outcome of a pending challenge. One that failed takes
// its authorization along: clients look at that one, and would wait for ever.
func (a *ACME) UpdateChallenge(ctx context.Context, ch *acme.Challenge) error {
	problem, err := problemJSON(ch.Error)
	if err != nil {
		return fmt.Errorf("encoding a problem: %w", err)
	}
	err = a.s.change(ctx, func(tx *txn) error {
		res, err := tx.ExecContext(ctx, `UPDATE acme_challenges SET status = ?, validated_at = ?, problem = ? WHERE id = ? AND status = ?`,
			ch.Status, ch.ValidatedAt, problem, ch.ID, acme.StatusPending)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 || ch.Status != acme.StatusInvalid {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE acme_authorizations SET status = ?, problem = ? WHERE id = ? AND status = ?`,
			acme.StatusInvalid, problem, ch.AuthorizationID, acme.StatusPending)
		return err
	})
	if err != nil {
		return fmt.Errorf("updating challenge %s: %w", ch.ID, err)
	}
	now, err := a.GetChallenge(ctx, ch.ID, ch.AuthorizationID)
	if err != nil {
		return err
	}
	ch.Status, ch.ValidatedAt, ch.Error = now.Status, now.ValidatedAt, now.Error
	return nil
}
