package store

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/smallstep/certificates/acme"
)

// sweepLag is how long an order without a certificate stays to be looked at.
const sweepLag = time.Hour

// NewOrder is an order with all that belongs to it.
type NewOrder struct {
	*acme.Order
	Authorizations []*acme.Authorization // with their challenges; ids are set
	Asked          bool                  // the client named NotAfter
}

// AddOrder stores an order, its authorizations and challenges in one
// transaction, under a new id. The oldest unfinished one of the account makes
// room if there are too many.
func (a *ACME) AddOrder(ctx context.Context, o NewOrder) error {
	o.ID = rand.Text()
	identifiers, err := json.Marshal(o.Identifiers)
	if err != nil {
		return fmt.Errorf("encoding identifiers: %w", err)
	}
	err = a.s.change(ctx, func(tx *txn) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO acme_orders
			(id, account, provisioner, status, identifiers, asked, not_before, not_after, created_at, expires, sweep_at, problem, certificate)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '')`,
			o.ID, o.AccountID, o.ProvisionerID, o.Status, string(identifiers), flag(o.Asked), millis(o.NotBefore), millis(o.NotAfter),
			millis(time.Now()), millis(o.ExpiresAt), millis(o.ExpiresAt.Add(sweepLag))); err != nil {
			return err
		}
		for i := range o.Authorizations {
			if err := o.addAuthorization(ctx, tx, i); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM acme_orders WHERE id IN
			(SELECT id FROM acme_orders WHERE account = ? AND certificate = '' AND id <> ? ORDER BY created_at DESC LIMIT 1000 OFFSET ?)`,
			o.AccountID, o.ID, maxUnfinished-1)
		return err
	})
	if err != nil {
		return fmt.Errorf("creating an order: %w", err)
	}
	return nil
}

func (o NewOrder) addAuthorization(ctx context.Context, tx *txn, position int) error {
	az := o.Authorizations[position]
	if _, err := tx.ExecContext(ctx, `INSERT INTO acme_authorizations
		(id, order_id, position, account, kind, value, token, status, expires, problem) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '')`,
		az.ID, o.ID, position, az.AccountID, az.Identifier.Type, az.Identifier.Value, az.Token, az.Status, millis(az.ExpiresAt)); err != nil {
		return err
	}
	for i, ch := range az.Challenges {
		if _, err := tx.ExecContext(ctx, `INSERT INTO acme_challenges (id, authorization_id, position, kind, status, validated_at, problem)
			VALUES (?, ?, ?, ?, ?, '', '')`, ch.ID, az.ID, i, ch.Type, ch.Status); err != nil {
			return err
		}
	}
	return nil
}

// GetOrder returns an order, or a malformed problem.
func (a *ACME) GetOrder(ctx context.Context, id string) (*acme.Order, error) {
	o, _, err := a.Order(ctx, id)
	return o, err
}

// Order returns an order, and whether its client named the end of the certificate.
func (a *ACME) Order(ctx context.Context, id string) (o *acme.Order, asked bool, err error) {
	o = &acme.Order{ID: id}
	row := a.s.read.QueryRowContext(ctx, `SELECT account, provisioner, status, identifiers, asked, not_before, not_after, expires, problem, certificate
		FROM acme_orders WHERE id = ?`, id)
	var identifiers, problem string
	var notBefore, notAfter, expires int64
	err = row.Scan(&o.AccountID, &o.ProvisionerID, &o.Status, &identifiers, &asked, &notBefore, &notAfter, &expires, &problem, &o.CertificateID)
	if err != nil {
		return nil, false, absent("order", id, err)
	}
	o.NotBefore, o.NotAfter, o.ExpiresAt = fromMillis(notBefore), fromMillis(notAfter), fromMillis(expires)
	if o.Error, err = parseProblem(problem); err != nil {
		return nil, false, fmt.Errorf("reading order %s: %w", id, err)
	}
	if err := json.Unmarshal([]byte(identifiers), &o.Identifiers); err != nil {
		return nil, false, fmt.Errorf("reading order %s: %w", id, err)
	}
	o.AuthorizationIDs, err = a.ids(ctx, `SELECT id FROM acme_authorizations WHERE order_id = ? ORDER BY position`, id)
	return o, asked, err
}

func (a *ACME) ids(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := a.s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("listing ids: %w", err)
	}
	return collect(rows, func(id *string) error { return rows.Scan(id) })
}

// absent turns "no rows" into the problem that smallstep's own storage answers.
func absent(what, id string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return acme.NewDetailedError(acme.ErrorMalformedType, "%s %.64q not found", what, id)
	}
	return fmt.Errorf("reading %s %s: %w", what, id, err)
}

// GetOrdersByAccountID lists the orders of an account that can still be worked on (RFC 8555 §7.1.2.1).
func (a *ACME) GetOrdersByAccountID(ctx context.Context, accountID string) ([]string, error) {
	return a.ids(ctx, `SELECT id FROM acme_orders WHERE account = ? AND status IN (?, ?) AND expires > ? ORDER BY created_at`,
		accountID, acme.StatusPending, acme.StatusReady, millis(time.Now()))
}

// UpdateOrder moves an order on. An order becomes valid with the commit of its
// certificate (Issue.Order) and in no other way, so that there is never the one
// without the other.
func (a *ACME) UpdateOrder(ctx context.Context, o *acme.Order) error {
	problem, err := problemJSON(o.Error)
	if err != nil {
		return fmt.Errorf("encoding a problem: %w", err)
	}
	if o.Status != acme.StatusValid {
		if err := a.update(ctx, `UPDATE acme_orders SET status = ?, problem = ? WHERE id = ? AND status IN (?, ?)`,
			o.Status, problem, o.ID, acme.StatusPending, acme.StatusReady); err != nil {
			return fmt.Errorf("updating order %s: %w", o.ID, err)
		}
	}
	now, err := a.GetOrder(ctx, o.ID)
	if err != nil {
		return err
	}
	if o.Status == acme.StatusValid && now.CertificateID != o.CertificateID {
		return fmt.Errorf("updating order %s: it has no certificate in the record", o.ID)
	}
	o.Status, o.Error, o.CertificateID = now.Status, now.Error, now.CertificateID
	return nil
}

func (a *ACME) update(ctx context.Context, query string, args ...any) error {
	return a.s.change(ctx, func(tx *txn) error {
		_, err := tx.ExecContext(ctx, query, args...)
		return err
	})
}

// finish gives an order its certificate, in the transaction that records it.
func finish(ctx context.Context, tx *txn, order string, c Certificate) error {
	res, err := tx.ExecContext(ctx, `UPDATE acme_orders SET status = ?, certificate = ?, sweep_at = ? WHERE id = ? AND status = ?`,
		acme.StatusValid, c.Serial, millis(c.NotAfter), order, acme.StatusReady)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, ErrOrderGone)
	}
	_, err = tx.ExecContext(ctx, `UPDATE acme_accounts SET proven_at = ? WHERE id = (SELECT account FROM acme_orders WHERE id = ?)`,
		millis(c.IssuedAt), order)
	return err
}

// GetCertificate returns the certificate of an order by its serial.
func (a *ACME) GetCertificate(ctx context.Context, serial string) (*acme.Certificate, error) {
	out := &acme.Certificate{ID: serial}
	err := a.s.read.QueryRowContext(ctx, `SELECT id, account FROM acme_orders WHERE certificate = ?`, serial).Scan(&out.OrderID, &out.AccountID)
	if err != nil {
		return nil, absent("certificate", serial, err)
	}
	c, err := a.s.Get(ctx, serial)
	if err != nil {
		return nil, err
	}
	if out.Leaf, err = x509.ParseCertificate(c.DER); err == nil {
		out.Intermediates, err = x509.ParseCertificates(c.Chain)
	}
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s: %w", serial, err)
	}
	return out, nil
}

// GetCertificateBySerial is GetCertificate: serials are the ids.
func (a *ACME) GetCertificateBySerial(ctx context.Context, serial string) (*acme.Certificate, error) {
	return a.GetCertificate(ctx, serial)
}

// flag is a bool in both dialects.
func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
