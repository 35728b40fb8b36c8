// Package records opens the record of an authority for commands that look at it:
// beside a running authority, and without any key. It also is the record as a
// source of an audit, which knows no database.
package records

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/pages"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// Open opens the record in dir, which the caller closes. Its errors carry advice. A directory
// without a pki.yaml was probably named by mistake, so the advice names flag, the flag that
// named it. In any other directory something is damaged.
func Open(ctx context.Context, dir, flag string) (*ca.Record, error) {
	record, err := ca.StateDir(dir).OpenRecord(ctx)
	if err != nil {
		err = fmt.Errorf("opening the record in %s: %w", dir, err)
		if _, config := os.Stat(filepath.Join(dir, "pki.yaml")); config == nil {
			return nil, statehints.StateDir(err, dir, statehints.Doctor)
		}
		return nil, ui.WithHint(err, "--%s names the state directory of the authority", flag)
	}
	return record, nil
}

// Local opens the record in dir, as [Open] does, as the source of an audit that
// judges at now. The caller calls release when the audit is over.
func Local(ctx context.Context, dir, flag string, now time.Time) (record audit.Record, release func(), err error) {
	r, err := Open(ctx, dir, flag)
	if err != nil {
		return audit.Record{}, nil, err
	}
	release = func() { _ = r.Close() } // read only
	roots, issuers, err := r.Authorities()
	if err != nil {
		release()
		return audit.Record{}, nil, err
	}
	return audit.Record{Name: dir, Now: now, List: pages.All(storePages(r)), Roots: roots, Issuers: issuers}, release, nil
}

// storePages reads the pages of a database that is open here.
func storePages(r *ca.Record) pages.Read {
	return func(ctx context.Context, cursor string) (out []audit.Recorded, next string, err error) {
		page, next, err := r.List(ctx, record.Query{Limit: record.MaxPage, Cursor: cursor})
		for _, c := range page {
			one := audit.Recorded{
				Service: c.Service, Lineage: c.Lineage, Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
				Revoked: c.Revocation != nil, DER: c.DER, Chain: c.Chain,
			}
			if c.Served != nil {
				one.Served = c.Served.Address
			}
			out = append(out, one)
		}
		return out, next, err
	}
}
