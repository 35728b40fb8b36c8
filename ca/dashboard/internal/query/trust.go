package query

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
)

// Authority returns a CA certificate by its fingerprint, or [record.ErrNotFound]. Its sealed key is in
// the same row, and is not read.
func (d *DB) Authority(ctx context.Context, fingerprint string) (*x509.Certificate, error) {
	var der []byte
	err := d.q.QueryRowContext(ctx, `SELECT certificate FROM authorities WHERE fingerprint = ?`, fingerprint).Scan(&der)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("CA certificate %.16s: %w", fingerprint, record.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading CA certificate %.16s: %w", fingerprint, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil || certs.Fingerprint(c) != fingerprint {
		return nil, fmt.Errorf("CA certificate %.16s: the record has another one in its place", fingerprint)
	}
	return c, nil
}

// Lagging returns holdings of lineages of which some process may not have one of the bundles in
// effect, and whether there are more than MostLagging: the lineages that have reported another bundle, and
// those that have not reported. Who has followed is not among them, however many these are. Reports of
// lineages that have ended stay until they are pruned, so more is also true if there are many of these.
func (d *DB) Lagging(ctx context.Context, bundles []string, now time.Time) (held []truststore.Holding, more bool, err error) {
	lineages := map[string]bool{}
	add := func(text string, args ...any) (n int, err error) {
		rows, err := d.q.QueryContext(ctx, text, args...)
		if err != nil {
			return 0, err
		}
		type line struct {
			lineage string
			live    int64
		}
		found, err := sqldb.Collect(rows, func(l *line) error { return rows.Scan(&l.lineage, &l.live) })
		for _, l := range found {
			if l.live == 1 {
				lineages[l.lineage] = true
			}
		}
		return len(found), err
	}
	// What is beside the known bundles is what lies between them in the order of the index.
	sorted := slices.Sorted(slices.Values(bundles))
	for i := range len(sorted) + 1 {
		text, args := laggingText, []any{}
		if i > 0 {
			text, args = text+` AND t.trust_digest > ?`, append(args, sorted[i-1])
		}
		if i < len(sorted) {
			text, args = text+` AND t.trust_digest < ?`, append(args, sorted[i])
		}
		n, err := add(text+` LIMIT ?`, append(args, maxLagging)...)
		if err != nil {
			return nil, false, fmt.Errorf("looking for other bundles: %w", err)
		}
		more = more || n == maxLagging
	}
	if _, err = add(silentText, sqldb.Millis(now), MostLagging+1); err != nil {
		return nil, false, fmt.Errorf("looking for who has not reported: %w", err)
	}
	all := slices.Sorted(maps.Keys(lineages))
	if len(all) > MostLagging {
		all, more = all[:MostLagging], true
	}
	for some := range slices.Chunk(all, 100) {
		found, err := d.holdings(ctx, some, now)
		if err != nil {
			return nil, false, err
		}
		held = append(held, found...)
	}
	return held, more, nil
}

const (
	laggingText = `SELECT t.lineage, CASE WHEN EXISTS (SELECT 1 FROM holders h WHERE h.lineage = t.lineage AND h.state = 0) THEN 1 ELSE 0 END
		FROM trust_reports t WHERE t.trust_digest IS NOT NULL`
	silentText = `SELECT lineage, 1 FROM holders WHERE state = 0 AND reported = 0 AND not_after + 0 > ? ORDER BY lineage LIMIT ?`
)

const (
	// MostLagging is how many lineages [DB.Lagging] returns. Each costs some tenths of a millisecond, because
	// its certificates and reports are read.
	MostLagging = 200
	// maxLagging bounds how many reports of other bundles are looked at.
	maxLagging = 2000
)

// holdings is truststore.Holdings for some lineages.
func (d *DB) holdings(ctx context.Context, lineages []string, now time.Time) ([]truststore.Holding, error) {
	args := make([]any, len(lineages))
	for i, l := range lineages {
		args[i] = l
	}
	by, err := d.reports(ctx, args)
	if err != nil {
		return nil, err
	}
	rows, err := d.q.QueryContext(ctx, holdingsText+marks(len(args))+`) AND `+truststore.Held, append(args, sqldb.Millis(now))...)
	if err != nil {
		return nil, fmt.Errorf("reading who holds certificates: %w", err)
	}
	type numbered struct {
		truststore.Holding
		id int64
	}
	list, err := sqldb.Collect(rows, func(h *numbered) error {
		var names string
		var notBefore, notAfter, issued int64
		if err := rows.Scan(&h.id, &h.Service, &h.Lineage, &h.Serial, &names, &h.Issuer, &notBefore, &notAfter, &issued); err != nil {
			return err
		}
		h.NotBefore, h.NotAfter, h.IssuedAt = sqldb.FromMillis(notBefore), sqldb.FromMillis(notAfter), sqldb.FromMillis(issued)
		h.Reports = truststore.Counting(by[h.Lineage])
		_ = json.Unmarshal([]byte(names), &h.Names) // damaged ones are shown without names
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading who holds certificates: %w", err)
	}
	// By lineage and the oldest first, as trust.NewFleet takes them.
	slices.SortFunc(list, func(a, b numbered) int {
		switch {
		case a.Lineage != b.Lineage:
			return slices.Compare([]byte(a.Lineage), []byte(b.Lineage))
		default:
			return int(a.id - b.id)
		}
	})
	out := make([]truststore.Holding, len(list))
	for i := range list {
		out[i] = list[i].Holding
	}
	return out, nil
}

const holdingsText = `SELECT c.id, c.service, c.lineage, c.serial, c.names, i.key_id, c.not_before, c.not_after, c.issued_at
	FROM certificates c JOIN issuers i ON i.id = c.issuer WHERE c.lineage IN (`
