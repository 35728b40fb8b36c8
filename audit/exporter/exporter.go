package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/audit"
)

// Options configures an [Exporter].
type Options struct {
	// ConfigFile is read by New and by Reload. Required.
	ConfigFile string
	// Record opens the record that a configuration names. release is called after it was read.
	// nil means that no configuration may name one.
	Record func(context.Context, *Config) (record audit.Record, release func(), err error)
	// Registry has further metrics to serve; nil for none.
	Registry *prometheus.Registry
	// Program is the program and its version, for the page.
	Program string
	// Logger gets what has changed and what has failed; nil means slog.Default.
	Logger *slog.Logger
}

// Exporter audits what its configuration names.
type Exporter struct {
	opts    Options
	own     *prometheus.Registry
	log     *slog.Logger
	current atomic.Pointer[session]
	first   *session       // until Run has started it
	reload  chan *session  // a configuration that is to be in effect
	config  configOutcome  // of the last attempt to read one
	since   sinceMemory    // when differences were first seen
	pages   limiter        // bounds the pages that are made at a time
	reports limiter        // reports in JSON
	scrapes limiter        // metrics
	ended   sync.WaitGroup // what belongs to sessions that have ended
}

// configOutcome is how the last attempt to read the configuration went.
type configOutcome struct {
	mu     sync.Mutex
	good   bool
	loaded time.Time // the last success
}

// note adds an attempt.
func (o *configOutcome) note(good bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.good = good; good {
		o.loaded = time.Now()
	}
}

// New reads the configuration. It looks at no target yet.
func New(opts Options) (*Exporter, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	e := &Exporter{
		opts: opts, log: opts.Logger, reload: make(chan *session, 1),
		pages: newLimiter(), reports: newLimiter(), scrapes: newLimiter(),
	}
	e.since.at = map[sinceKey]*sinceEntry{}
	c, err := e.readConfig()
	if err != nil {
		return nil, err
	}
	e.config.note(true)
	e.first = e.newSession(c)
	e.current.Store(e.first)
	e.own = prometheus.NewRegistry()
	e.own.MustRegister(collector{e})
	return e, nil
}

// readConfig reads the configuration, and refuses what this exporter cannot do.
func (e *Exporter) readConfig() (*Config, error) {
	c, err := ReadConfig(e.opts.ConfigFile)
	if err != nil {
		return nil, err
	}
	if c.Record != "" && e.opts.Record == nil {
		return nil, fmt.Errorf("reading %s: record: this program reads no record", e.opts.ConfigFile)
	}
	return c, nil
}

// Run audits until ctx ends, and returns nil then. It is called once.
func (e *Exporter) Run(ctx context.Context) error {
	s, end := e.first, e.start(ctx, e.first)
	e.first = nil
	defer e.ended.Wait()
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case next := <-e.reload:
			endNext := e.start(ctx, next)
			select {
			case <-ctx.Done():
				endNext()
				return nil
			case <-next.ready: // the old one is served until then
			}
			e.current.Store(next)
			end()
			s, end = next, endNext
			e.log.InfoContext(ctx, "the new configuration is in effect", slog.String("path", e.opts.ConfigFile))
		case <-s.renewed:
			e.again(ctx, s)
		}
	}
}

// start starts a session. end ends it and waits for it.
func (e *Exporter) start(ctx context.Context, s *session) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// again replaces a session because a file that its configuration names has changed, such as the
// trust bundle. The configuration itself is not read: nobody has asked for that.
func (e *Exporter) again(ctx context.Context, s *session) {
	c, err := parse(s.cfg.path, s.cfg.text)
	if err != nil {
		e.log.WarnContext(ctx, "a file that the configuration names has changed and cannot be used; the old one stays", slog.Any("err", err))
		e.config.note(false)
		return
	}
	e.config.note(true)
	e.replace(c)
}

// replace has Run start a session, in place of one that has not begun.
func (e *Exporter) replace(c *Config) {
	s := e.newSession(c)
	// The channel holds one: of several reloads while a session starts, the last counts.
	for {
		select {
		case e.reload <- s:
			return
		default:
		}
		select {
		case <-e.reload:
		default:
		}
	}
}

// Reload reads the configuration again. The new one takes effect when all of its targets have been
// looked at once; until then, and if the error is not nil, the old one stays.
func (e *Exporter) Reload(ctx context.Context) error {
	c, err := e.readConfig()
	e.config.note(err == nil)
	if err != nil {
		e.log.ErrorContext(ctx, "the configuration was not reloaded, the old one stays", slog.Any("err", err))
		return err
	}
	e.replace(c)
	return nil
}

// Ready returns why there is nothing to be relied on yet, or nil.
func (e *Exporter) Ready(context.Context) error {
	s := e.current.Load()
	if !s.complete() {
		return errors.New("not all targets have been looked at yet")
	}
	return s.stuck(time.Now())
}
