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

// Only Init makes a record. Everything else opens an existing one, because a record
// that is made in the place of a lost one would forget revocations and spent tokens
// (docs/design/0014-the-record-is-never-replaced.md).

// inDir reports whether the record is a file in the state directory.
func (opt Options) inDir() bool {
	return opt.Database == "" || !sqldb.IsURL(opt.Database) && filepath.IsLocal(opt.Database)
}

// recordIn returns where to make the record while the directory is made in staging.
// A file in the state directory is made in staging and moves with it; a record
// elsewhere is made in its final place.
func (opt Options) recordIn(staging string) string {
	if opt.inDir() {
		return statedir.Database(staging, opt.Database)
	}
	return statedir.Database(opt.Dir, opt.Database)
}

// makeRecord makes the record and returns the signed head of its empty log. A
// database with the record of another authority is refused: this authority would
// answer for certificates that it has not issued. The check and the first head are
// not one transaction; of two authorities that begin at once, Begin refuses one.
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

// withdraw takes the record back out of a database that is not in the directory,
// after a later step of Init has failed. The key of the record is removed with the
// directory, so the next Init would refuse the record as that of another authority. A
// process that is killed before this leaves the record in the database.
func (opt Options) withdraw(ctx context.Context, head []byte) (err error) {
	if head == nil || opt.inDir() {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // Init may have failed because ctx ended
	record, err := store.Open(ctx, statedir.Database(opt.Dir, opt.Database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, record.Close()) }()
	return record.Withdraw(ctx, head)
}
