package acmestore

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/certrow"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// sweepLag is how long an order without a certificate stays after its end, so that the client
// can read why it failed.
const sweepLag = time.Hour

// NewOrder is an order with all that belongs to it. Dates that the client did not
// name are zero.
type NewOrder struct {
	*acme.Order
	Authorizations []*acme.Authorization // with their challenges; ids are set
	Profile        string                // service that it is for
	Replaces       string                // name of the certificate that it replaces (RFC 9773 §4.1), or empty
}

// Bits of acme_orders.asked: dates that the client named.
const (
	askedNotAfter  = 1
	askedNotBefore = 2
)

// AddOrder stores an order, its authorizations and challenges in one
// transaction, under a new id. If the account has maxUnfinished orders, the oldest
// unfinished one is deleted.
func (s *Store) AddOrder(ctx context.Context, o NewOrder) error {
	o.ID = rand.Text()
	identifiers, err := json.Marshal(o.Identifiers)
	if err != nil {
		return fmt.Errorf("encoding identifiers: %w", err)
	}
	err = s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO acme_orders
			(id, account, provisioner, status, identifiers, asked, not_before, not_after, created_at, expires, sweep_at, problem, certificate, profile, replaces)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', '', ?, ?)`,
			o.ID, o.AccountID, o.ProvisionerID, o.Status, string(identifiers), o.asked(), sqldb.Millis(o.NotBefore), sqldb.Millis(o.NotAfter),
			sqldb.Millis(time.Now()), sqldb.Millis(o.ExpiresAt), sqldb.Millis(o.ExpiresAt.Add(sweepLag)), o.Profile, o.Replaces); err != nil {
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

func (o NewOrder) asked() (bits int) {
	if !o.NotAfter.IsZero() {
		bits |= askedNotAfter
	}
	if !o.NotBefore.IsZero() {
		bits |= askedNotBefore
	}
	return bits
}

func (o NewOrder) addAuthorization(ctx context.Context, tx *sqldb.Txn, position int) error {
	az := o.Authorizations[position]
	if _, err := tx.ExecContext(ctx, `INSERT INTO acme_authorizations
		(id, order_id, position, account, kind, value, token, status, expires, problem) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '')`,
		az.ID, o.ID, position, az.AccountID, az.Identifier.Type, az.Identifier.Value, az.Token, az.Status, sqldb.Millis(az.ExpiresAt)); err != nil {
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

// Order is a stored order. Dates that the client did not name are zero.
type Order struct {
	*acme.Order
	Profile  string // service that it is for; empty in orders of earlier versions
	Replaces string // name of the certificate that it replaces (RFC 9773 §4.1), or empty
}

// Replaced reports whether an order that is ready or valid replaces the certificate with a name. A pending
// one does not count: a client that has lost its order must not have to wait until it ends.
func (s *Store) Replaced(ctx context.Context, name string) (found bool, err error) {
	err = s.db.Read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM acme_orders WHERE replaces = ? AND replaces <> ''
		AND (status = ? OR status = ? AND expires > ?))`, name, acme.StatusValid, acme.StatusReady, sqldb.Millis(time.Now())).Scan(&found)
	if err != nil {
		return false, fmt.Errorf("looking for orders that replace %s: %w", name, err)
	}
	return found, nil
}

// Order returns an order, or a malformed problem. An unfinished order that has expired is
// returned as invalid, although its row still has the former status.
func (s *Store) Order(ctx context.Context, id string) (_ Order, err error) {
	o := Order{Order: &acme.Order{ID: id}}
	row := s.db.Read.QueryRowContext(ctx, `SELECT account, provisioner, status, identifiers, asked, not_before, not_after, expires, problem, certificate, profile, replaces
		FROM acme_orders WHERE id = ?`, id)
	var identifiers, problem string
	var asked int
	var notBefore, notAfter, expires int64
	err = row.Scan(&o.AccountID, &o.ProvisionerID, &o.Status, &identifiers, &asked, &notBefore, &notAfter, &expires, &problem, &o.CertificateID, &o.Profile, &o.Replaces)
	if err != nil {
		return o, notFoundProblem("order", id, err)
	}
	o.ExpiresAt = sqldb.FromMillis(expires)
	if asked&askedNotBefore != 0 {
		o.NotBefore = sqldb.FromMillis(notBefore)
	}
	if asked&askedNotAfter != 0 {
		o.NotAfter = sqldb.FromMillis(notAfter)
	}
	if o.Error, err = parseProblem(problem); err != nil {
		return o, fmt.Errorf("reading order %s: %w", id, err)
	}
	if err := json.Unmarshal([]byte(identifiers), &o.Identifiers); err != nil {
		return o, fmt.Errorf("reading order %s: %w", id, err)
	}
	if underWay := o.Status == acme.StatusPending || o.Status == acme.StatusReady; underWay && !time.Now().Before(o.ExpiresAt) {
		o.Status, o.Error = acme.StatusInvalid, orderProblem("the order expired before it was finalized")
	}
	o.AuthorizationIDs, err = s.ids(ctx, `SELECT id FROM acme_authorizations WHERE order_id = ? ORDER BY position`, id)
	return o, err
}

func orderProblem(detail string) *acme.Error {
	return &acme.Error{Type: "urn:ietf:params:acme:error:unauthorized", Detail: detail}
}

// condition is a WHERE clause for orders with one argument.
type condition struct{ where, arg string }

// endOrders makes pending and ready orders invalid that meet a condition.
func endOrders(ctx context.Context, tx *sqldb.Txn, c condition, why string) error {
	problem, err := problemJSON(orderProblem(why))
	if err != nil {
		return fmt.Errorf("encoding a problem: %w", err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE acme_orders SET status = ?, problem = ? WHERE status IN (?, ?) AND `+c.where,
		acme.StatusInvalid, problem, acme.StatusPending, acme.StatusReady, c.arg)
	return err
}

func (s *Store) ids(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.db.Read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("listing ids: %w", err)
	}
	return sqldb.Collect(rows, func(id *string) error { return rows.Scan(id) })
}

// notFoundProblem turns "no rows" into a problem.
func notFoundProblem(what, id string, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return &acme.Error{Type: "urn:ietf:params:acme:error:malformed", Detail: fmt.Sprintf("there is no %s %.64q", what, id), Status: http.StatusNotFound}
	}
	return fmt.Errorf("reading %s %s: %w", what, id, err)
}

// GetOrdersByAccountID lists the orders of an account that are pending or ready and have not
// expired (RFC 8555 §7.1.2.1).
func (s *Store) GetOrdersByAccountID(ctx context.Context, accountID string) ([]string, error) {
	return s.ids(ctx, `SELECT id FROM acme_orders WHERE account = ? AND status IN (?, ?) AND expires > ? ORDER BY created_at`,
		accountID, acme.StatusPending, acme.StatusReady, sqldb.Millis(time.Now()))
}

// GetCertificate returns the certificate of an order by its serial.
func (s *Store) GetCertificate(ctx context.Context, serial string) (*acme.Certificate, error) {
	out := &acme.Certificate{ID: serial}
	err := s.db.Read.QueryRowContext(ctx, `SELECT id, account FROM acme_orders WHERE certificate = ?`, serial).Scan(&out.OrderID, &out.AccountID)
	if err != nil {
		return nil, notFoundProblem("certificate", serial, err)
	}
	if err := s.db.Stopped(); err != nil {
		return nil, err
	}
	found, err := certrow.Find(ctx, s.db.Read, serial)
	if err != nil {
		return nil, err
	}
	c := found.Certificate
	if out.Leaf, err = x509.ParseCertificate(c.DER); err == nil {
		out.Intermediates, err = x509.ParseCertificates(c.Chain)
	}
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s: %w", serial, err)
	}
	return out, nil
}
