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

// maxShare is the most changes of one transaction. The first caller waits for all of them, so
// this bounds how long.
const maxShare = 128

// groupCommitter is the writing side of SQLite. Callers that come while a transaction is
// being written share the next one, and with it the flush to the disk, which takes longer
// than all their statements. It has no goroutine: the caller that gets the turn runs the
// changes of all that wait, and each caller returns after the commit.
//
// A change that fails undoes only itself. No caller returns before COMMIT has returned, so a
// crash before it loses only changes that were not acknowledged.
type groupCommitter struct {
	db   *sql.DB
	file *watchedFile
	turn chan struct{} // full while a caller writes; a channel, so that a wait for it can end early

	mu    sync.Mutex // guards queue
	queue []*pendingChange

	// Only the caller that has the turn uses these.
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

// change runs fn in a transaction. If the context ends before fn begins, fn does not run and
// the error is that of the context. After that, change waits and returns how fn ended.
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
			s.runBatch(context.WithoutCancel(ctx)) // it runs changes of other callers, which go on
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

// leave takes a change out of the queue. It returns false if the change has begun already.
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
		runtime.Gosched() // callers that were just answered may come back with another change
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	c := s.queue[0]
	s.queue = slices.Delete(s.queue, 0, 1) // the queue is short, and keeps its array
	return c
}

// runBatch runs one transaction with the changes that are queued or come while it runs, and
// then lets their callers return.
func (s *groupCommitter) runBatch(ctx context.Context) {
	c := s.take()
	if c == nil {
		return // the batch before has run all changes
	}
	batch, failed := s.runChanges(ctx, c)
	if failed == nil {
		failed = s.exec(ctx, `COMMIT`)
	}
	if failed == nil {
		failed = s.file.check() // a commit to a file without a name is lost when the process ends
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

// runChanges runs changes and returns them. failed is an error of the whole transaction, not
// of one change. A savepoint costs a copy of each page that is written after it, and nearly
// all changes succeed. So changes run without savepoints until one fails. Then the
// transaction is undone, and all run again, each in a savepoint.
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

// begin opens a transaction with the right to write. A transaction that takes this right
// later can fail then, because another process wrote in between.
func (s *groupCommitter) begin(ctx context.Context) error {
	if s.closed {
		return errClosed
	}
	if s.conn != nil {
		return s.exec(ctx, `BEGIN IMMEDIATE`)
	}
	if err := s.file.check(); err != nil { // a new connection would open the file that replaced ours
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

// restart undoes the transaction and opens another one.
func (s *groupCommitter) restart(ctx context.Context) error {
	_ = s.exec(ctx, `ROLLBACK`) // fails if SQLite has done it already; after other failures begin fails too
	return s.begin(ctx)
}

// runInSavepoint runs one change in a savepoint; err is the error of the change. failed means
// that the whole transaction is over. When the disk is full, for instance, SQLite undoes the
// transaction by itself, and the savepoint does not exist any more. Going on would commit the
// later changes without the earlier ones.
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

// guarded runs a change and turns a panic into an error. Otherwise the other callers that
// share the transaction would wait for ever.
func guarded(fn func(*Txn) error, tx *Txn) (err error) {
	defer panics.Catch(func(p *panics.Error) { err = fmt.Errorf("panic in a change: %v", p.Value) })
	return fn(tx)
}

func (s *groupCommitter) exec(ctx context.Context, text string) error {
	_, err := s.stmts.ExecContext(ctx, text)
	return err
}

// dropConnection closes the connection after an error that leaves its state unknown. The next
// batch opens another one.
func (s *groupCommitter) dropConnection(ctx context.Context) {
	s.file.closed()
	_ = s.exec(ctx, `ROLLBACK`) // fails if no transaction is open
	_ = s.stmts.closeStatements()
	_ = s.conn.Raw(func(any) error { return driver.ErrBadConn }) // database/sql closes it
	_ = s.conn.Close()                                           // releases the closed connection
	s.conn, s.stmts = nil, nil
}

// shutdown waits for the batch that runs. Later changes fail with errClosed.
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
