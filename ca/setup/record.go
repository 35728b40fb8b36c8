package setup

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// Only Init makes a record. Everything else opens the one that is there.

// inDir reports whether the record is a file in the state directory.
func (opt Options) inDir() bool {
	return opt.Database == "" || !sqldb.IsURL(opt.Database) && filepath.IsLocal(opt.Database)
}

// recordIn is where the record is while the directory is made in staging: a file
// in it moves with it, and any other place is where it will be.
func (opt Options) recordIn(staging string) string {
	if opt.inDir() {
		return statedir.Database(staging, opt.Database)
	}
	return statedir.Database(opt.Dir, opt.Database)
}

// makeRecord makes the record and returns the head of its empty log. In a shared
// database another authority may have been there before: its certificates would be ours.
func makeRecord(ctx context.Context, where string, key *translog.Key) (head []byte, err error) {
	record, err := store.Create(ctx, where)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, record.Close()) }()
	empty, err := record.Empty(ctx)
	if err != nil {
		return nil, err
	}
	if empty {
		head, err = record.Begin(ctx, key)
	}
	if !empty || errors.Is(err, store.ErrNotEmpty) {
		return nil, errors.New("making the record: the database has the record of another authority")
	}
	return head, err
}

// withdraw takes the record back out of a database that is not in the directory:
// its key goes with the directory, and the next Init would find another authority's.
func (opt Options) withdraw(ctx context.Context, head []byte) (err error) {
	if head == nil || opt.inDir() {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // it may be the reason
	record, err := store.Open(ctx, statedir.Database(opt.Dir, opt.Database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, record.Close()) }()
	return record.Withdraw(ctx, head)
}
