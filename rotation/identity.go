package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/internal/lograte"
)

const (
	defaultDrain = time.Minute
)

// Config configures [Open] and [OpenTrust].
type Config struct {
	Source Source       // required
	Logger *slog.Logger // default slog.Default()
	// DrainTimeout is how long a superseded generation may finish what it carries
	// before its connections are cut; default 1 min. The end of its leaf cuts
	// them earlier.
	DrainTimeout time.Duration
}

// Identity follows a source and hands out what depends on it. All methods are
// safe for concurrent use.
type Identity struct {
	source  Source
	runner  *sourceRunner
	log     *slog.Logger
	drain   time.Duration
	tickets ticketSecret
	servers atomic.Uint64
	epoch   atomic.Uint64 // of session tickets, see InvalidateSessions
	drained atomic.Uint64 // connections that ended by themselves after their time, and
	forced  atomic.Uint64 // those that had to be cut
	refused [reasons]refusals
	panics  lograte.Gate // of Authorize
	current atomic.Pointer[liveGeneration]
	started chan struct{} // closed with the first generation

	ctx    context.Context // of everything the Identity runs
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ending sync.Once

	publishing sync.Mutex // one candidate at a time: gate and publication are one step
	events     events

	mu       sync.Mutex // guards what follows; no I/O, no callbacks under it
	uses     usage
	lists    *revocations // in effect, as signed last: a newer signature alone is no new generation
	health   health
	held     *postponed
	retiring []*liveGeneration
	serving  []*Server // that accepted connections
	closed   bool
}

type health struct {
	mode     string
	modeErr  error
	success  time.Time
	err      error
	failures int
	refused  uint64
	warnings []string         // about the newest candidate that was accepted
	others   map[string]error // what is wrong with the newest of the other certificates, by name
}

// postponed is a candidate that waits for its NotBefore.
type postponed struct {
	gen    *Generation
	cancel context.CancelFunc
}

// Open starts to follow the source and waits for its first good generation. ctx
// bounds this wait only. A source that gives up before that is not tried again:
// Open returns its error, so that a wrong path or token shows at once.
func Open(ctx context.Context, cfg Config) (*Identity, error) {
	if cfg.Source == nil {
		return nil, errors.New("opening identity: Source is missing")
	}
	if cfg.DrainTimeout < 0 {
		return nil, fmt.Errorf("opening identity: DrainTimeout %s is negative", cfg.DrainTimeout)
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = defaultDrain
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	id := &Identity{source: cfg.Source, log: cfg.Logger, drain: cfg.DrainTimeout, tickets: newTicketSecret()}
	id.ctx, id.cancel = context.WithCancel(context.WithoutCancel(ctx))
	id.events.wake = make(chan struct{}, 1)
	id.started = make(chan struct{})
	id.runner = newSourceRunner(cfg.Source, id.propose, identityObserver{id}, func() bool { return id.current.Load() != nil })
	id.wg.Go(func() { id.runner.run(id.ctx) })
	select {
	case <-id.started:
	case err := <-id.runner.failed:
		id.shutdown()
		return nil, fmt.Errorf("opening identity: %w", err)
	case <-ctx.Done():
		// shut joins; a generation published in this instant is dropped with it.
		id.shutdown()
		id.mu.Lock()
		last := id.health.err
		id.mu.Unlock()
		if last != nil {
			return nil, fmt.Errorf("opening identity: %w: %w", ctx.Err(), last)
		}
		return nil, fmt.Errorf("opening identity: waiting for the first certificate: %w", ctx.Err())
	}
	id.wg.Go(id.dispatch)
	return id, nil
}

// Current is the generation in effect: one atomic load.
func (id *Identity) Current() *Generation { return id.current.Load().gen }

func (id *Identity) currentGeneration() *Generation {
	if n := id.current.Load(); n != nil {
		return n.gen
	}
	return nil
}

// DrainTimeout is Config.DrainTimeout as it is in effect: how long a superseded generation
// may finish what it carries. For adapters that keep connections of their own.
func (id *Identity) DrainTimeout() time.Duration { return id.drain }

// identityObserver keeps the methods of [Observer] off the Identity.
type identityObserver struct{ id *Identity }

func (o identityObserver) Mode(mode string, why error) { o.id.noteMode(mode, why) }
func (o identityObserver) Failed(err error)            { o.id.noteFailure(err) }

// noteFailure records a failure of the source or a refused candidate; nil clears it.
// A failure that repeats itself is logged once.
func (id *Identity) noteFailure(err error) {
	id.mu.Lock()
	known := err == nil || errtext.Of(id.health.err) == err.Error()
	id.health.err = err
	id.health.failures++
	if err == nil {
		id.health.failures = 0
	}
	if !known {
		id.health.refused++
	}
	id.mu.Unlock()
	if known {
		return
	}
	id.log.Warn("identity not refreshed", "err", err)
	id.events.push(Change{Generation: id.currentGeneration(), Err: err})
}

// noteMode records how a file source notices changes.
func (id *Identity) noteMode(mode string, why error) {
	id.mu.Lock()
	id.health.mode, id.health.modeErr = mode, why
	id.mu.Unlock()
	if why != nil {
		id.log.Warn("file notification unavailable, polling only", "err", why)
	}
}

// Reload has the source start over and waits for its first answer: nil when
// what it yields is published, held or unchanged, else why not. For SIGHUP and
// administrative endpoints; file changes are noticed without it.
func (id *Identity) Reload(ctx context.Context) error {
	if id.ctx.Err() != nil {
		return fmt.Errorf("reloading identity: %w", ErrClosed)
	}
	select {
	case err := <-id.runner.restart():
		if err != nil {
			return fmt.Errorf("reloading identity: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("reloading identity: %w", ctx.Err())
	case <-id.ctx.Done():
		return fmt.Errorf("reloading identity: %w", ErrClosed)
	}
}

// requireUsage records a use of the identity that candidates must not break.
func (id *Identity) requireUsage(u usage) {
	id.mu.Lock()
	id.uses |= u
	id.mu.Unlock()
}

// Close stops following the source, cuts all client connections and waits for
// every goroutine. It is idempotent and returns nil. The last generation and
// the server configurations stay usable. It must not be called from a
// subscriber, which it would wait for.
func (id *Identity) Close() error {
	id.shutdown()
	return nil
}

func (id *Identity) shutdown() {
	id.mu.Lock()
	id.closed = true
	id.mu.Unlock()
	id.cancel()
	id.wg.Wait()
	id.ending.Do(func() {
		if n := id.current.Load(); n != nil {
			n.supersede(time.Now(), 0) // no successor: requests and leases take this as the end
			for _, n := range id.liveGenerations() {
				n.closeAll()
			}
		}
	})
}

// liveGenerations lists the generations that may have connections.
func (id *Identity) liveGenerations() []*liveGeneration {
	id.mu.Lock()
	defer id.mu.Unlock()
	return append(slices.Clone(id.retiring), id.current.Load())
}
