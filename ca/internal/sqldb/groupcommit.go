package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/artstore/artstore-pki/internal/panics"
)

// maxShare bounds the changes of one transaction: the first caller of a crowd
// waits for the others in it.
const maxShare = 128

// groupCommitter is the writing side of SQLite. Callers that come while a transaction is
// being written share the next one, and with it the flush to the disk that costs
// more than all they do. There is no goroutine of its own: whoever gets the turn
// runs everybody's changes, and each caller is answered after the commit.
//
// A change that fails takes back nothing but itself. The crash story: nobody has
// been answered before COMMIT has returned, so a crash before it loses what nobody
// was told of.
type groupCommitter struct {
	db   *sql.DB
	file *watchedFile
	turn chan struct{} // holds the right to write; a channel, because waiters must be able to leave

	mu    sync.Mutex // guards queue
	queue []*pendingChange

	// Of whoever has the turn.
	conn   *sql.Conn
	stmts  *sqliteQuerier
	closed bool
}

// pendingChange is one caller's part of a transaction.
type pendingChange struct {
	fn   func(*Txn) error // may run more than once
	err  error            // of fn, or of the transaction
	done chan struct{}    // closed when err is final
}

var errClosed = errors.New("the record is closed")

// change runs fn in a transaction. A caller whose context ends leaves if its
// change has not begun; from then on it is told how the change ended.
func (s *groupCommitter) change(ctx context.Context, fn func(*Txn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &pendingChange{fn: fn, done: make(chan struct{})}
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	for !c.isDone() {
		select {
		case <-c.done:
		case <-ctx.Done():
			if s.leave(c) {
				return ctx.Err()
			}
			<-c.done
		case s.turn <- struct{}{}:
			s.runBatch(context.WithoutCancel(ctx)) // for others too
			<-s.turn
		}
	}
	return c.err
}

func (c *pendingChange) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// leave takes a change out of the queue, if it is still there.
func (s *groupCommitter) leave(c *pendingChange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, c)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

func (s *groupCommitter) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) == 0
}

// take returns the next change to run, or nil.
func (s *groupCommitter) take() *pendingChange {
	if s.empty() {
		runtime.Gosched() // those whom the round before answered are on their way
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	c := s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1) // short; it keeps the array
	return c
}

// runBatch runs one transaction with what is queued, and with what comes while it
// runs, and answers.
func (s *groupCommitter) runBatch(ctx context.Context) {
	c := s.take()
	if c == nil {
		return // another round had it
	}
	batch, failed := s.runChanges(ctx, c)
	if failed == nil {
		failed = s.exec(ctx, `COMMIT`)
	}
	if failed == nil {
		failed = s.file.check() // what was committed to a file without a name is lost
	}
	if failed != nil && s.conn != nil {
		s.dropConnection(ctx)
	}
	for _, c := range batch {
		if failed != nil {
			c.err = failed
		}
		close(c.done)
	}
}

// runChanges runs changes; failed is not of one of them but everybody's. Savepoints
// are dear, because SQLite copies each page that is written after one. Nearly all
// changes succeed, so there are none until one fails; then all begin anew, with them.
func (s *groupCommitter) runChanges(ctx context.Context, first *pendingChange) (batch []*pendingChange, failed error) {
	batch = []*pendingChange{first}
	failed = s.begin(ctx)
	savepoints := false
	for i := 0; i < len(batch) && failed == nil; i++ {
		c := batch[i]
		if savepoints {
			c.err, failed = s.runInSavepoint(ctx, c.fn)
		} else if c.err = guarded(c.fn, &Txn{Querier: s.stmts}); c.err != nil {
			savepoints, i = true, -1
			failed = s.restart(ctx)
		}
		if failed == nil && i == len(batch)-1 && len(batch) < maxShare {
			if c := s.take(); c != nil {
				batch = append(batch, c)
			}
		}
	}
	return batch, failed
}

// begin opens a transaction that writes from the start: one that reads first
// could fail later, because another process wrote in between.
func (s *groupCommitter) begin(ctx context.Context) error {
	if s.closed {
		return errClosed
	}
	if s.conn != nil {
		return s.exec(ctx, `BEGIN IMMEDIATE`)
	}
	if err := s.file.check(); err != nil { // a new connection would open what is there now
		return err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	s.conn, s.stmts = conn, &sqliteQuerier{on: conn, unbroken: true}
	if err := s.exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	return s.file.opened()
}

// restart takes back what was done.
func (s *groupCommitter) restart(ctx context.Context) error {
	_ = s.exec(ctx, `ROLLBACK`) // it fails if SQLite did it already; if it fails otherwise, begin does, too
	return s.begin(ctx)
}

// runInSavepoint runs one change as a savepoint. failed is the end of the whole
// transaction: when the disk is full, for instance, SQLite takes all of it back
// by itself, and then the savepoint is gone as well. To go on would commit the
// later parts without the earlier ones.
func (s *groupCommitter) runInSavepoint(ctx context.Context, fn func(*Txn) error) (err, failed error) {
	if failed := s.exec(ctx, `SAVEPOINT part`); failed != nil {
		return nil, failed
	}
	if err = guarded(fn, &Txn{Querier: s.stmts}); err != nil {
		if failed := s.exec(ctx, `ROLLBACK TO part`); failed != nil {
			return err, errors.Join(err, failed)
		}
	}
	return err, s.exec(ctx, `RELEASE part`)
}

// guarded turns a panic into an error: it is one caller's, and the others who
// share the transaction must not hang.
func guarded(fn func(*Txn) error, tx *Txn) (err error) {
	defer panics.Catch(func(p *panics.Error) { err = fmt.Errorf("panic in a change: %v", p.Value) })
	return fn(tx)
}

func (s *groupCommitter) exec(ctx context.Context, text string) error {
	_, err := s.stmts.ExecContext(ctx, text)
	return err
}

// dropConnection gives up a connection whose state is in doubt; the next round takes a new one.
func (s *groupCommitter) dropConnection(ctx context.Context) {
	s.file.closed()
	_ = s.exec(ctx, `ROLLBACK`) // it fails if there is nothing to take back
	_ = s.stmts.closeStatements()
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn }) // database/sql closes it
	_ = s.conn.Close()                                           // it is closed
	s.conn, s.stmts = nil, nil
}

// shutdown waits for the round that runs; later changes fail.
func (s *groupCommitter) shutdown() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.closed = true
	if s.conn == nil {
		return nil
	}
	s.file.closed()
	err := errors.Join(s.stmts.closeStatements(), s.conn.Close())
	s.conn, s.stmts = nil, nil
	return err
}
