package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
)

// Live counts the certificates of a service that have neither expired at now nor
// been revoked. It stops counting at most.
func (s *Store) Live(ctx context.Context, service string, now time.Time, most int) (int, error) {
	return countLive(ctx, s.db.Read, liveCount{service, now, most})
}

// liveCount asks how many certificates of a service are live at a time, and is content with
// most.
type liveCount struct {
	service string
	at      time.Time
	most    int
}

// countLive counts by the index alone first, revoked certificates included. If that is below
// most already, the slower count without them is not needed: the limit is not reached.
func countLive(ctx context.Context, q sqldb.Querier, ask liveCount) (n int, err error) {
	const from = ` FROM certificates c WHERE c.service = ? AND c.not_after > ?`
	for _, and := range []string{``, ` AND NOT EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id)`} {
		if n, err = count(ctx, q, `SELECT COUNT(*) FROM (SELECT 1`+from+and+` LIMIT ?) AS counted`, ask.service, millis(ask.at), ask.most); err != nil || n < ask.most {
			return n, err
		}
	}
	return n, nil
}

func count(ctx context.Context, q sqldb.Querier, text string, args ...any) (n int, err error) {
	if err = q.QueryRowContext(ctx, text, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting certificates: %w", err)
	}
	return n, nil
}

// LiveByService counts the certificates that have not expired at now, revoked
// ones included, of each service that has any.
func (s *Store) LiveByService(ctx context.Context, now time.Time) (map[string]int, error) {
	rows, err := s.db.Read.QueryContext(ctx, `SELECT service, COUNT(*) FROM certificates WHERE not_after > ? GROUP BY service`, millis(now))
	if err != nil {
		return nil, fmt.Errorf("counting certificates: %w", err)
	}
	type line struct {
		service string
		n       int
	}
	lines, err := sqldb.Collect(rows, func(l *line) error { return rows.Scan(&l.service, &l.n) })
	if err != nil {
		return nil, fmt.Errorf("counting certificates: %w", err)
	}
	out := make(map[string]int, len(lines))
	for _, l := range lines {
		out[l.service] = l.n
	}
	return out, nil
}

// maxCrowded is the most lineages that Crowded returns.
const maxCrowded = 20

// Crowded returns the lineages with at least so many live certificates, the largest first, 20
// at most. Like [Inspect] it migrates nothing and reads schemas of older versions too.
func Crowded(ctx context.Context, where string, least int, now time.Time) (_ []record.LineageCount, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("counting lineages: %w", err)
		}
	}()
	db, err := sqldb.OpenAsIs(ctx, where)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const text = `SELECT MIN(c.service), c.lineage, COUNT(*) FROM certificates c
		WHERE c.not_after > ? AND NOT EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id)
		GROUP BY c.lineage HAVING COUNT(*) >= ? ORDER BY 3 DESC, 2 LIMIT ?`
	rows, err := db.Read.QueryContext(ctx, text, millis(now), least, maxCrowded)
	if err != nil {
		return nil, err
	}
	return sqldb.Collect(rows, func(l *record.LineageCount) error { return rows.Scan(&l.Service, &l.Lineage, &l.Live) })
}
