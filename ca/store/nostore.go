//go:build nostore

package store

import (
	"context"
	"sync/atomic"
)

// forgetting is for bench/ca only, which asks what the authority could do if
// recording cost nothing. It makes the first changes, so that whoever renews
// there is known, and forgets all later ones. Nothing else may be built with the
// tag: what such an authority issues is in no record.
type forgetting struct {
	writer
	made atomic.Int64
}

const remembered = 200 // changes; the clients of the benchmark and what the authority does by itself until they are there

func recording(w writer) writer { return &forgetting{writer: w} }

func (f *forgetting) change(ctx context.Context, fn func(*txn) error) error {
	if f.made.Add(1) > remembered {
		return nil
	}
	return f.writer.change(ctx, fn)
}
