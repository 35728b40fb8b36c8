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
	// DrainTimeout is how long the requests of a superseded generation may go on
	// before its connections are cut. Default 1 min; a negative value is an error.
	// If the leaf expires earlier, they are cut then.
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
	drained atomic.Uint64 // connections that were asked to end, and ended by themselves
	forced  atomic.Uint64 // connections that were cut
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

	mu       sync.Mutex // guards the fields below; no I/O and no callback while it is held
	uses     usage
	lists    *revocations // in effect, with the newest signatures: a new signature alone makes no new generation
	health   health
	held     *postponed
	retiring []*liveGeneration
	serving  []*Server // that accepted connections
	closed   bool
}

// health is what [Identity.Status] reports of the source and of the candidates.
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

// Open starts to follow the source and waits for its first good generation. ctx bounds
// this wait only. If the source gives up before, Open returns its error and does not
// start it again, so that a wrong path or token shows at once.
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
		// If a generation is published now, shutdown drops it.
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

// Current returns the generation in effect. It costs one atomic load, and is never nil.
func (id *Identity) Current() *Generation { return id.current.Load().gen }

// currentGeneration is Current for the time before the first generation, when it
// returns nil.
func (id *Identity) currentGeneration() *Generation {
	if n := id.current.Load(); n != nil {
		return n.gen
	}
	return nil
}

// DrainTimeout returns Config.DrainTimeout, or its default. It is for adapters that keep
// connections of their own.
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

// noteMode records how the source notices changes.
func (id *Identity) noteMode(mode string, why error) {
	id.mu.Lock()
	id.health.mode, id.health.modeErr = mode, why
	id.mu.Unlock()
	if why != nil {
		id.log.Warn("changes are noticed by polling only", "err", why)
	}
}

// Reload restarts the source and waits until the gate has judged what it yields first.
// The result is nil if that is published, is unchanged, or waits for its NotBefore;
// otherwise it says why not. It is for SIGHUP and administrative endpoints: changes of
// files are noticed without it.
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

// requireUsage records that this process serves or connects with the identity. From now
// on the gate refuses candidates that cannot be used so.
func (id *Identity) requireUsage(u usage) {
	id.mu.Lock()
	id.uses |= u
	id.mu.Unlock()
}

// Close stops following the source, cuts all client connections and waits for every
// goroutine. It may be called again, and returns nil. The last generation and the
// server configurations stay usable. A subscriber must not call it: Close waits for
// subscribers.
func (id *Identity) Close() error {
	id.shutdown()
	return nil
}

// shutdown ends and joins everything that the Identity runs. The last generation is
// superseded only after that, so that no goroutine can publish another one.
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

// liveGenerations returns the generations that may have connections, the oldest first.
func (id *Identity) liveGenerations() []*liveGeneration {
	id.mu.Lock()
	defer id.mu.Unlock()
	return append(slices.Clone(id.retiring), id.current.Load())
}
