package store

import (
	"context"
	"fmt"
	"time"
)

// Live counts the certificates of a service that have neither expired at now nor
// been revoked, up to most: what is beyond it is not looked at.
func (s *Store) Live(ctx context.Context, service string, now time.Time, most int) (int, error) {
	return countLive(ctx, s.read, service, now, most)
}

// countLive first counts by the index alone, revoked ones included: mostly that is
// answer enough, and the second look at each row is saved.
func countLive(ctx context.Context, q querier, service string, now time.Time, most int) (n int, err error) {
	const from = ` FROM certificates c WHERE c.service = ? AND c.not_after > ?`
	for _, and := range []string{``, ` AND NOT EXISTS (SELECT 1 FROM revocations r WHERE r.certificate = c.id)`} {
		if n, err = count(ctx, q, `SELECT COUNT(*) FROM (SELECT 1`+from+and+` LIMIT ?) AS counted`, service, millis(now), most); err != nil || n < most {
			return n, err
		}
	}
	return n, nil
}

func count(ctx context.Context, q querier, text string, args ...any) (n int, err error) {
	if err = q.QueryRowContext(ctx, text, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting certificates: %w", err)
	}
	return n, nil
}

// LiveByService counts the certificates that have not expired at now, revoked
// ones included, of each service that has any.
func (s *Store) LiveByService(ctx context.Context, now time.Time) (map[string]int, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT service, COUNT(*) FROM certificates WHERE not_after > ? GROUP BY service`, millis(now))
	if err != nil {
		return nil, fmt.Errorf("counting certificates: %w", err)
	}
	type line struct {
		service string
		n       int
	}
	lines, err := collect(rows, func(l *line) error { return rows.Scan(&l.service, &l.n) })
	if err != nil {
		return nil, fmt.Errorf("counting certificates: %w", err)
	}
	out := make(map[string]int, len(lines))
	for _, l := range lines {
		out[l.service] = l.n
	}
	return out, nil
}
