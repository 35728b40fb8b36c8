package dashboard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ca/dashboard/internal/page"
	"github.com/artstore/artstore-pki/ca/dashboard/internal/query"
	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

const (
	// connections is how many pages are made at a time, each over one connection to the database. A
	// further request waits for its turn.
	connections = 4
	// pageTimeout bounds the making of one page, with the wait for the turn.
	pageTimeout = 10 * time.Second
	// pageRows is the number of rows of a table in a page, and csvRows in a file of CSV.
	pageRows, csvRows = 40, 500
	// frontAge is how long the numbers of the first page are used again.
	frontAge = time.Second
)

// Errors of [Open] that callers match.
var (
	// ErrSchema reports a record that another version of the program has made or updated.
	ErrSchema = sqldb.ErrSchema
	// ErrNoRecord reports a state directory whose record is missing.
	ErrNoRecord = sqldb.ErrNoRecord
)

// Options say what to show.
type Options struct {
	// Dir is the state directory of the authority.
	Dir string
	// AnyHost lets requests name any host, as behind a server that has authenticated its peer.
	// Otherwise only names of loopback are answered: a page of a website could have its name lead to
	// loopback, and read what it gets (DNS rebinding).
	AnyHost bool
	// Program is the name and the version of the program, for the foot of pages.
	Program string
	// Logger gets the errors of pages. nil means slog.Default.
	Logger *slog.Logger
}

// Dashboard is an open record with the pages about it. It is safe for concurrent use.
type Dashboard struct {
	opt      Options
	files    statedir.Dir
	db       *sqldb.DB
	query    *query.DB
	names    *store.Store // to search by names
	trust    *truststore.Store
	log      *eventlog.Log
	verifier translog.Verifier
	turns    chan struct{}
	now      func() time.Time

	// frontTurn is full while a caller makes the first page for all that wait, and guards the next two.
	// It is a channel, because the caller reads the database meanwhile, and a waiter can give up.
	frontTurn chan struct{}
	front     *page.Page
	frontAt   time.Time

	versions atomic.Pointer[versions] // of the trust, as they were read last
}

// Open opens the record of a state directory for reading. Errors name the file or the database;
// [ErrNoRecord] and [ErrSchema] among them. The caller closes the dashboard after the last request.
func Open(ctx context.Context, opt Options) (*Dashboard, error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	cfg, err := policy.Load(opt.Dir)
	if err != nil {
		return nil, err
	}
	d := &Dashboard{opt: opt, files: statedir.Dir{Path: opt.Dir}, turns: make(chan struct{}, connections), frontTurn: make(chan struct{}, 1), now: time.Now}
	if d.verifier, err = statedir.LogVerifier(opt.Dir); err != nil {
		return nil, err
	}
	if d.db, err = sqldb.OpenReaders(ctx, statedir.Database(opt.Dir, cfg.Database), connections); err != nil {
		return nil, fmt.Errorf("opening the record for reading: %w", err)
	}
	d.query, d.names, d.trust, d.log = query.New(d.db.Read, pageRows), store.New(d.db), truststore.New(d.db), eventlog.New(d.db)
	return d, nil
}

// Close closes the connections to the database.
func (d *Dashboard) Close() error { return d.db.Close() }

// Ready returns why pages cannot be made, or nil.
func (d *Dashboard) Ready(ctx context.Context) error {
	if err := d.db.Intact(); err != nil {
		return err
	}
	var one int
	return d.db.Read.QueryRowContext(ctx, `SELECT 1`).Scan(&one)
}

// errNotFound is answered with 404.
var errNotFound = errors.New("there is no such page")

// view makes a page. Its tables have the rows that limit allows.
type view func(ctx context.Context, r request) (*page.Page, error)

// request is what a page depends on.
type request struct {
	*http.Request
	now   time.Time
	query *query.DB
	csv   bool
}

// value returns a parameter of the address, "" if there is none.
func (r request) value(name string) string { return r.URL.Query().Get(name) }
