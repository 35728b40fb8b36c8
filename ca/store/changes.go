package store

import (
	"context"
	"fmt"
)

// Changes are numbers that grow with what services wait for. Two equal values mean that
// nothing has changed.
type Changes struct {
	Revocations int64 // see [Store.RevocationMark]
	Orders      int64 // id of the newest order to renew
	OpenOrders  int64 // how many there are
}

// Changes returns the numbers of now, from one small query: a process that shares its
// record with others asks each second.
func (s *Store) Changes(ctx context.Context) (c Changes, err error) {
	if err := s.db.Intact(); err != nil {
		return c, fmt.Errorf("looking for changes: %w", err)
	}
	if err := s.db.Read.QueryRowContext(ctx, `SELECT mark, (SELECT COALESCE(MAX(id), 0) FROM renewal_orders), (SELECT COUNT(*) FROM renewal_orders)
		FROM revocation_mark WHERE id = 1`).Scan(&c.Revocations, &c.Orders, &c.OpenOrders); err != nil {
		return c, fmt.Errorf("looking for changes: %w", err)
	}
	return c, nil
}

// Listen calls heard for changes by any process, see [sqldb.DB.Listen]. With SQLite it
// returns [errors.ErrUnsupported] at once.
func (s *Store) Listen(ctx context.Context, heard func()) error { return s.db.Listen(ctx, heard) }
