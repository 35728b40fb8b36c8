// Package pages makes a source of an audit of a record that is read page by page, wherever the
// record is: in a database, or behind the API of an authority.
package pages

import (
	"context"

	"github.com/artstore/artstore-pki/audit"
)

// Read reads the page behind a cursor, "" for the first.
type Read func(ctx context.Context, cursor string) (page []audit.Recorded, next string, err error)

// All returns all certificates behind read, page after page, in the form that
// [audit.Record] wants: it ends early when yield returns false.
func All(read Read) func(context.Context, func(audit.Recorded) bool) error {
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
