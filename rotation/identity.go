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

	"github.com/artstore/artstore-pki/internal/lograte"
)

const (
	defaultDrain = time.Minute
	minRestart   = 100 * time.Millisecond // of a source that gave up
	maxRestart   = 30 * time.Second
)

// Source delivers candidates until ctx ends, and then returns. yield checks and
// publishes one; its error says why it was refused, and the last good one stays.
// yield must not be called after Watch returned. A Watch that returns while ctx
// lives is started again, with a growing pause; it is also started again, with a
// new ctx, by [Identity.Reload], and must then yield what it has.
type Source interface {
	Watch(ctx context.Context, yield func(Material) error) error
}

// reporter is a source that has something to say between candidates: how it
// watches and why, and failures that last. Nil clears either.
type reporter interface {
	watch(ctx context.Context, yield func(Material) error, say observer) error
}

type observer interface {
	watching(mode string, why error)
	failing(err error)
}

// Static is a source of one fixed identity, for tests and short-lived commands.
func Static(m Material) Source { return static{m} }

type static struct{ m Material }

func (s static) Watch(ctx context.Context, yield func(Material) error) error {
	if err := yield(s.m); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// Config configures [Open].
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
	log     *slog.Logger
	drain   time.Duration
	tickets ticketSecret
	servers atomic.Uint64
	epoch   atomic.Uint64 // of session tickets, see InvalidateSessions
	drained atomic.Uint64 // connections that ended by themselves after their time, and
	forced  atomic.Uint64 // those that had to be cut
	refused [reasons]refusals
	panics  lograte.Gate // of Authorize
	current atomic.Pointer[tenure]
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
	held     *held
	retiring []*tenure
	serving  []*Server          // that accepted connections
	round    context.CancelFunc // ends the running Watch, for Reload
	waiting  []chan error       // Reloads that wait for the next round
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
	failed := make(chan error, 1)
	id.wg.Go(func() { id.follow(cfg.Source, failed) })
	select {
	case <-id.started:
	case err := <-failed:
		id.shut()
		return nil, fmt.Errorf("opening identity: %w", err)
	case <-ctx.Done():
		// shut joins; a generation published in this instant is dropped with it.
		id.shut()
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

// DrainTimeout is Config.DrainTimeout as it is in effect: how long a superseded generation
// may finish what it carries. For adapters that keep connections of their own.
func (id *Identity) DrainTimeout() time.Duration { return id.drain }

// follow keeps the source running. failed receives the error of a source that
// gives up before the first generation.
func (id *Identity) follow(src Source, failed chan<- error) {
	pause := minRestart
	for id.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(id.ctx)
		began, served := time.Now(), false
		waiting := id.startRound(cancel)
		err := id.watch(ctx, src, func(m Material) error {
			err := id.offer(m)
			settle(waiting, err)
			waiting = nil
			served = served || err == nil
			return err
		})
		reloaded := ctx.Err() != nil
		if err == nil {
			err = errors.New("the source stopped")
		}
		if id.ctx.Err() != nil {
			err = ErrClosed
		}
		settle(waiting, err)
		if !reloaded {
			if id.current.Load() == nil {
				cancel()
				failed <- err
				return
			}
			id.failing(err)
			if served || time.Since(began) > maxRestart {
				pause = minRestart
			}
			sleep(ctx, pause)
			pause = min(2*pause, maxRestart)
		}
		cancel()
	}
}

func (id *Identity) watch(ctx context.Context, src Source, yield func(Material) error) error {
	if r, ok := src.(reporter); ok {
		return r.watch(ctx, yield, id)
	}
	return src.Watch(ctx, yield)
}

func (id *Identity) startRound(cancel context.CancelFunc) []chan error {
	id.mu.Lock()
	defer id.mu.Unlock()
	waiting := id.waiting
	id.waiting, id.round = nil, cancel
	return waiting
}

// Reload has the source start over and waits for its first answer: nil when
// what it yields is published, held or unchanged, else why not. For SIGHUP and
// administrative endpoints; file changes are noticed without it.
func (id *Identity) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	id.mu.Lock()
	if id.closed {
		id.mu.Unlock()
		return fmt.Errorf("reloading identity: %w", ErrClosed)
	}
	id.waiting = append(id.waiting, done)
	restart := id.round
	id.mu.Unlock()
	restart()
	select {
	case err := <-done:
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

// needs records a use of the identity that candidates must not break.
func (id *Identity) needs(u usage) {
	id.mu.Lock()
	id.uses |= u
	id.mu.Unlock()
}

// serves notes that s has connections, and looks after them unless the identity is over.
func (id *Identity) serves(s *Server) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.serving = append(id.serving, s)
	if !id.closed {
		id.wg.Go(s.mind)
	}
}

// Close stops following the source, cuts all client connections and waits for
// every goroutine. It is idempotent and returns nil. The last generation and
// the server configurations stay usable. It must not be called from a
// subscriber, which it would wait for.
func (id *Identity) Close() error {
	id.shut()
	return nil
}

func (id *Identity) shut() {
	id.mu.Lock()
	id.closed = true
	id.mu.Unlock()
	id.cancel()
	id.wg.Wait()
	id.ending.Do(func() {
		if n := id.current.Load(); n != nil {
			n.supersede(time.Now(), 0) // no successor: requests and leases take this as the end
			for _, n := range id.tenures() {
				n.end()
			}
		}
	})
}

// tenures lists the generations that may have connections.
func (id *Identity) tenures() []*tenure {
	id.mu.Lock()
	defer id.mu.Unlock()
	return append(slices.Clone(id.retiring), id.current.Load())
}

func settle(waiting []chan error, err error) {
	for _, w := range waiting {
		w <- err // buffered, and settled once
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
