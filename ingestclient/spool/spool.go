package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
	"github.com/artstore/artstore-pki/ingestclient/spool/status"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/flock"
)

// Defaults of Config.
const (
	defaultSettle   = 2 * time.Second
	defaultRescan   = 5 * time.Second
	defaultWorkers  = 8
	defaultDrain    = 30 * time.Second
	defaultMinFree  = 1 << 20
	lockTries       = 10
	lockPause       = 20 * time.Millisecond
	publishInterval = time.Second
)

// ErrLocked is returned by Open while another process has the directory.
var ErrLocked = errors.New("another instance is running on this directory")

// Uploader sends one file and returns when the element's size and checksum have
// been compared with what was sent. [*ingestclient.Client] is one; errors are
// judged by that package's sentinels.
type Uploader interface {
	Upload(ctx context.Context, content ingestclient.Content, meta ingestclient.Meta) (*ingestclient.File, error)
}

// Finder returns the file that is stored under an id, or [ingestclient.ErrNotFound].
type Finder interface {
	Metadata(ctx context.Context, id string) (*ingestclient.File, error)
}

// SourceAction says what is done with a source after it was stored.
type SourceAction string

// All actions.
const (
	DeleteSource SourceAction = "delete"
	MoveSource   SourceAction = "move" // to done/ in the state directory
	KeepSource   SourceAction = "keep" // stays, and is not sent again unless it changes
)

// Config says what to send where. Dir and Uploader are required; the zero value
// of every other field works.
type Config struct {
	// Dir is the spooled directory.
	Dir string
	// StateDir is the directory of the spool's own files and of claimed ones. It must be
	// outside of Dir, on the same file system, and used for this Dir only. Its parent
	// must exist. Empty means [StateDir] in Dir.
	StateDir string
	// Uploader sends.
	Uploader Uploader
	// Finder looks files up. If it is set, each file is offered to the element under an
	// id that the spool chooses. Once a receipt has shown that an element stores under
	// that id (ArtStore's Python Storage Element does, the Go one does not), uploads
	// without an outcome are looked up there and repeated under their id. Before that,
	// and if Finder is nil, such an upload is ambiguous, and an operator decides.
	Finder Finder
	// IDsKept says that each element is known to store files under the id that it is
	// offered. A receipt that shows the opposite counts more.
	IDsKept bool
	// Prober asks elements whether they take files. If it is set, it is asked at the
	// start, and after each failure that is not the fault of a file; then one file is
	// sent at a time, until one is stored. If it is nil, a waiting file is sent instead.
	Prober Prober
	// Meta goes with each file; FileID is set by the spool.
	Meta ingestclient.Meta
	// OnSuccess is what is done with a stored source. Empty means DeleteSource.
	OnSuccess SourceAction
	// Settle is how long a file must not change to count as complete. 0 means 2 s. A
	// negative value means no wait, for writers that rename complete files into Dir.
	Settle time.Duration
	// OnClose says that a file is complete when its writer closes it (Linux only). It is
	// wrong for writers that open a file more than once.
	OnClose bool
	// Rescan is the pause between two scans of the whole directory. 0 means 5 s.
	Rescan time.Duration
	// Recursive includes sub-directories; the element gets base names only.
	Recursive bool
	// Workers is the number of uploads at a time. 0 means 8.
	Workers int
	// MinFree is how many bytes must be free on the file system. With less, no more files
	// are claimed, so that the journal can still be written. 0 means 1 MiB, a negative
	// value is no limit.
	MinFree int64
	// DrainTimeout is how long uploads may go on after the ctx of Run has ended. 0 means
	// 30 s.
	DrainTimeout time.Duration
	// RetryAmbiguous sends the files in ambiguous/ once more. That may store a file twice.
	RetryAmbiguous bool
	// Once ends Run when the directory is empty, or the element takes nothing.
	Once bool
	// Logger gets state changes. nil means slog.Default.
	Logger *slog.Logger
	// Observer is called for each event, from several goroutines; it must not
	// block. A file stored before a crash may be reported again after it.
	Observer func(Event)

	jitter func() float64
	bubble bool // the test runs in a synctest bubble: no notifications, which would stop its clock, and no state.json
}

// Event says what has happened to a file, or to the queue.
type Event struct {
	Kind   string // "stored", "failed", "ambiguous", "paused" or "resumed"
	Name   string // of the file, below Dir
	FileID string // at the element
	SHA256 string
	Size   int64  // bytes
	Reason string // of a pause, in one of the words of docs/ingest.md
	Err    error
}

// Spool is an open directory. Run it once, then close it.
type Spool struct {
	cfg       Config
	layout    layout
	journal   *journal.Journal
	lock      *os.File
	recovered []*item // by recovery, in order of age

	stored         atomic.Int64
	bytes          atomic.Int64
	quarantinedNow [2]atomic.Int64 // failed, ambiguous
	mu             sync.Mutex      // guards the fields below
	snapshot       status.Snapshot
	published      status.Snapshot
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Uploader == nil {
		return c, errors.New("checking the configuration: Dir and Uploader are required")
	}
	switch c.OnSuccess {
	case "":
		c.OnSuccess = DeleteSource
	case DeleteSource, MoveSource, KeepSource:
	default:
		return c, fmt.Errorf("checking the configuration: OnSuccess %q: want delete, move or keep", c.OnSuccess)
	}
	if c.Workers < 0 || c.Rescan < 0 || c.DrainTimeout < 0 {
		return c, errors.New("checking the configuration: Workers, Rescan or DrainTimeout is negative")
	}
	c.Workers, c.Rescan, c.DrainTimeout = cmp.Or(c.Workers, defaultWorkers), cmp.Or(c.Rescan, defaultRescan), cmp.Or(c.DrainTimeout, defaultDrain)
	c.Settle, c.MinFree = cmp.Or(c.Settle, defaultSettle), cmp.Or(c.MinFree, defaultMinFree)
	c.Logger, c.Observer = orLogger(c.Logger), orObserver(c.Observer)
	if c.jitter == nil {
		c.jitter = jitter
	}
	return c, nil
}

// Open locks the directory, reads the journal and finishes the steps that an earlier run has
// left. It sends nothing. If another instance has the directory, the error is [ErrLocked].
func Open(cfg Config) (*Spool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	s := &Spool{cfg: cfg}
	if s.layout, err = openLayout(cfg, true); err != nil {
		return nil, fmt.Errorf("opening the spool %s: %w", cfg.Dir, err)
	}
	for _, finding := range fileperm.Parents(s.layout.state.Name()) {
		cfg.Logger.Warn("others can take the state away, and the next start would not find it", "path", s.layout.state.Name(), "err", finding)
	}
	for _, step := range []func() error{s.takeLock, s.layout.removeTemporary, s.layout.recordDirectory, s.resumeClaims} {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the spool %s: %w", cfg.Dir, err), s.Close())
		}
	}
	return s, nil
}

// takeLock locks the state. It tries for a fifth of a second, which is longer than a status
// command holds the lock.
func (s *Spool) takeLock() error {
	f, err := s.layout.state.OpenFile(lockName, os.O_RDWR|os.O_CREATE, durable.Private)
	if err != nil {
		return err
	}
	s.lock = f
	for try := 1; ; try++ {
		busy, err := flock.Try(f, false)
		if err != nil || !busy {
			return err
		}
		if try == lockTries {
			return ErrLocked
		}
		time.Sleep(lockPause) //nolint:forbidigo // Open has no context, and the sum is a fifth of a second
	}
}

// Close unlocks the directory. Call it after Run has returned.
func (s *Spool) Close() error {
	errs := []error{s.layout.Close()}
	if s.journal != nil {
		errs = append(errs, s.journal.Close())
	}
	if s.lock != nil {
		errs = append(errs, flock.Close(s.lock))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the spool: %w", err)
	}
	return nil
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func validID(s string) bool { return uuidForm.MatchString(s) }
