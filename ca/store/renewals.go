package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
)

// maxOrders is how many orders to renew may be open. Each is held in memory by each
// authority, and compared with each service that waits.
const maxOrders = 100

// OrderRenewal records an order in one transaction with its event, tells other processes,
// and returns its id. The caller has counted o.Matched. With too many open orders the error
// is [ErrTooManyOrders]. After a crash there is the order with its event, or neither.
func (s *Store) OrderRenewal(ctx context.Context, o record.RenewalOrder) (id int64, err error) {
	err = s.db.Change(ctx, func(tx *sqldb.Txn) (err error) {
		id, err = insertOrder(ctx, tx, o)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ordering a renewal: %w", err)
	}
	return id, nil
}

func insertOrder(ctx context.Context, tx *sqldb.Txn, o record.RenewalOrder) (id int64, err error) {
	var open int
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM renewal_orders`).Scan(&open); err != nil {
		return 0, err
	}
	if open >= maxOrders {
		return 0, ErrTooManyOrders
	}
	id, err = eventlog.Append(ctx, tx, record.Event{At: o.At, Kind: kinds.RenewalOrdered, Caller: o.Caller, Service: o.Service, Detail: o.Detail()}, [sha256.Size]byte{})
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO renewal_orders (id, nonce, issuer, service, key_type, lineage, wanted, at, due, caller, matched)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, rand.Text(), o.Issuer, o.Service, o.KeyType, o.Lineage, string(o.Wanted), millis(o.At), millis(o.By), o.Caller, o.Matched)
	if err != nil {
		return 0, err
	}
	return id, tx.Notify(ctx)
}

// RenewalOrders returns the orders that are there, the oldest first.
func (s *Store) RenewalOrders(ctx context.Context) ([]record.RenewalOrder, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT id, nonce, issuer, service, key_type, lineage, wanted, at, due, caller, matched FROM renewal_orders ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("reading orders to renew: %w", err)
	}
	return sqldb.Collect(rows, func(o *record.RenewalOrder) error {
		var at, due int64
		var wanted string
		err := rows.Scan(&o.ID, &o.Nonce, &o.Issuer, &o.Service, &o.KeyType, &o.Lineage, &wanted, &at, &due, &o.Caller, &o.Matched)
		o.At, o.By, o.Wanted = fromMillis(at), fromMillis(due), json.RawMessage(wanted)
		return err
	})
}

// DropRenewalOrder removes an order that everybody has followed.
func (s *Store) DropRenewalOrder(ctx context.Context, id int64) error {
	err := s.db.Change(ctx, func(tx *sqldb.Txn) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM renewal_orders WHERE id = ?`, id); err != nil {
			return err
		}
		return tx.Notify(ctx)
	})
	if err != nil {
		return fmt.Errorf("removing an order to renew: %w", err)
	}
	return nil
}

// A client of ACME does not renew: it orders a certificate for the same names, which begins
// a lineage of its own. It has followed if its account has got such a one.
//
// holdersText selects the newest certificate of each lineage up to a moment that was valid
// then, says whether the lineage has got a newer one since, and when its holder was seen. Of a
// lineage with a revoked certificate no other one can be renewed, so that nothing is asked of it.
const holdersText = `SELECT c.serial, c.service, c.lineage, i.key_id, c.names, c.not_before, c.not_after, c.issued_at, c.der,
	EXISTS (SELECT 1 FROM certificates n WHERE n.lineage = c.lineage AND n.issued_at > ?)
		OR c.caller LIKE 'acme %' AND EXISTS (SELECT 1 FROM certificates n
			WHERE n.service = c.service AND n.not_after > ? AND n.caller = c.caller AND n.names = c.names AND n.issued_at > ?),
	COALESCE((SELECT MAX(t.reported_at) FROM trust_reports t WHERE t.lineage = c.lineage), 0)
	FROM certificates c JOIN issuers i ON i.id = c.issuer
	WHERE ` + truststore.Held + ` AND c.issued_at <= ?
	AND NOT EXISTS (SELECT 1 FROM certificates n WHERE n.lineage = c.lineage AND n.id > c.id AND n.issued_at <= ?)
	AND NOT EXISTS (SELECT 1 FROM revocations r WHERE r.lineage = c.lineage)`

// Holders returns whom an order concerns, except for its kind of key: the certificate of each
// lineage that was in use at o.At. Lineages that were revoked are left out.
func (s *Store) Holders(ctx context.Context, o record.RenewalOrder) ([]record.RenewalHolder, error) {
	at := millis(o.At)
	text, args := holdersText, []any{at, at, at, at, at, at}
	for _, filter := range []struct{ condition, value string }{
		{` AND i.key_id = ?`, o.Issuer}, {` AND c.service = ?`, o.Service}, {` AND c.lineage = ?`, o.Lineage},
	} {
		if filter.value != "" {
			text, args = text+filter.condition, append(args, filter.value)
		}
	}
	rows, err := s.db.Read.QueryContext(ctx, text+` ORDER BY c.id`, args...)
	if err != nil {
		return nil, fmt.Errorf("looking for holders: %w", err)
	}
	return sqldb.Collect(rows, func(h *record.RenewalHolder) error {
		var names string
		var notBefore, notAfter, issued, seen int64
		c := &h.Certificate
		if err := rows.Scan(&c.Serial, &c.Service, &c.Lineage, &c.Issuer, &names, &notBefore, &notAfter, &issued, &c.DER, &h.Renewed, &seen); err != nil {
			return err
		}
		c.NotBefore, c.NotAfter, c.IssuedAt = fromMillis(notBefore), fromMillis(notAfter), fromMillis(issued)
		if h.LastSeen = c.IssuedAt; seen > issued {
			h.LastSeen = fromMillis(seen)
		}
		return json.Unmarshal([]byte(names), &c.Names)
	})
}
