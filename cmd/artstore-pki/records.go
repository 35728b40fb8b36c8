package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// openRecord opens the record in dir, which flag named.
func openRecord(ctx context.Context, dir, flag string) (*ca.Record, error) {
	record, err := ca.OpenRecord(ctx, dir)
	if err != nil {
		err = fmt.Errorf("opening the record in %s: %w", dir, err)
		if _, config := os.Stat(filepath.Join(dir, "pki.yaml")); config == nil {
			return nil, hintStateDir(err, dir, hintDoctor)
		}
		return nil, ui.WithHint(err, "--%s names the state directory of the authority", flag)
	}
	return record, nil
}

// localRecord opens the record in dir, which flag named.
func localRecord(ctx context.Context, dir, flag string, now time.Time) (source audit.Source, release func(), err error) {
	r, err := openRecord(ctx, dir, flag)
	if err != nil {
		return nil, nil, err
	}
	release = func() { _ = r.Close() } // read only
	roots, issuers, err := r.Authorities()
	if err != nil {
		release()
		return nil, nil, err
	}
	return audit.Record{Name: dir, Now: now, List: allPages(storePages(r)), Roots: roots, Issuers: issuers}, release, nil
}

// recordPages reads the page behind a cursor, "" for the first.
type recordPages func(ctx context.Context, cursor string) (page []audit.Recorded, next string, err error)

func allPages(read recordPages) func(context.Context, func(audit.Recorded) bool) error {
	return func(ctx context.Context, yield func(audit.Recorded) bool) error {
		for cursor := ""; ; {
			page, next, err := read(ctx, cursor)
			if err != nil {
				return err
			}
			for _, c := range page {
				if !yield(c) {
					return nil
				}
			}
			if next == "" {
				return nil
			}
			cursor = next
		}
	}
}

func storePages(r *ca.Record) recordPages {
	return func(ctx context.Context, cursor string) (out []audit.Recorded, next string, err error) {
		page, next, err := r.List(ctx, record.Query{Limit: maxPage, Cursor: cursor})
		for _, c := range page {
			out = append(out, audit.Recorded{
				Service: c.Service, Lineage: c.Lineage, Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
				Revoked: c.Revocation != nil, DER: c.DER, Chain: c.Chain,
			})
		}
		return out, next, err
	}
}
