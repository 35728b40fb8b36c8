package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/rotation"
)

// Options are what a configuration file cannot say.
type Options struct {
	// Served asks a server which certificate it serves; audit/served does. Required if an
	// identity has addresses to ask.
	Served func(ctx context.Context, address string, config *tls.Config) (*x509.Certificate, error)
	// Logger gets changes and failures. nil means slog.Default.
	Logger *slog.Logger
	// DialContext is enroll.Config.DialContext.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	changed func()           // the status has changed
	offer   func(m *managed) // an identity has a certificate now, or other revocation lists
}

// Agent keeps the identities of a configuration. [New] makes it.
type Agent struct {
	options Options
	log     *slog.Logger
	changes chan struct{} // capacity 1: the status has changed
	started time.Time
	reloads chan reload
	offers  offers

	mu      sync.Mutex // guards the fields below
	cfg     Config
	all     []*managed
	read    time.Time // when cfg was read
	refused string    // why a later configuration was not taken; "" if none was refused
}

// New makes an agent. It uses neither disk nor network, but for the users and groups in rules.
func New(cfg Config, o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	a := &Agent{log: o.Logger, changes: make(chan struct{}, 1), started: time.Now().UTC().Truncate(time.Second), reloads: make(chan reload)}
	o.changed, o.offer = a.tell, a.offers.add
	a.options = o
	all, err := a.plan(cfg)
	if err == nil {
		err = a.take(cfg, all)
	}
	if err != nil {
		return nil, fmt.Errorf("configuring the agent: %w", err)
	}
	return a, nil
}

// tell wakes the writer of the status file.
func (a *Agent) tell() {
	select {
	case a.changes <- struct{}{}:
	default:
	}
}

// Run keeps all identities until ctx ends. A failure of one is in its status, and is no error.
func (a *Agent) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	for _, m := range a.present() {
		m.start(ctx, &work)
	}
	work.Go(func() { a.writeStatus(ctx) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-a.reloads:
			r.done <- a.replace(ctx, &work, r.cfg)
		}
	}
}

// present returns the identities that the agent has now.
func (a *Agent) present() []*managed {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// Ready waits until each identity has a certificate, or a first attempt to get one has failed.
func (a *Agent) Ready(ctx context.Context) error {
	for _, m := range a.present() {
		select {
		case <-m.tried:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// ErrUnknownName reports a name that no identity has.
var ErrUnknownName = errors.New("there is no identity of this name")

// Renew renews an identity now. Its hook runs after that as after every renewal.
func (a *Agent) Renew(ctx context.Context, name string) error {
	for _, m := range a.present() {
		if m.Name == name {
			if err := m.source.give(ctx, order{renew: true}); err != nil {
				return fmt.Errorf("renewing %s: %w", name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("renewing %q: %w", name, ErrUnknownName)
}

// Status returns the present state. It does not wait for anything.
func (a *Agent) Status() Status {
	a.mu.Lock()
	all, cfg := a.all, a.cfg
	s := Status{StartedAt: a.started, ConfigReadAt: a.read, ConfigError: a.refused, Identities: make([]IdentityStatus, len(all))}
	a.mu.Unlock()
	for n, m := range all {
		s.Identities[n] = m.status()
	}
	if cfg.Workload != nil {
		s.Workload = a.offers.status(*cfg.Workload)
	}
	return s
}

// Identities returns those that have a certificate, by name.
func (a *Agent) Identities() map[string]*rotation.Identity {
	out := map[string]*rotation.Identity{}
	for _, m := range a.present() {
		if id := m.id.Load(); id != nil {
			out[m.Name] = id
		}
	}
	return out
}

const (
	statusEvery = 30 * time.Second       // at least, because times in it pass
	statusRest  = 500 * time.Millisecond // between two writings
)

// writeStatus keeps the status file up to date until ctx ends.
func (a *Agent) writeStatus(ctx context.Context) {
	regular := time.NewTicker(statusEvery)
	defer regular.Stop()
	var failed string
	for {
		err := a.writeStatusFile()
		if text := oneLine(err); text != failed {
			failed = text
			if err != nil {
				a.log.Warn("status file not written", "err", text)
			}
		}
		rest := time.NewTimer(statusRest)
		select {
		case <-ctx.Done():
			rest.Stop()
			return
		case <-rest.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-a.changes:
		case <-regular.C:
		}
	}
}

// writeStatusFile replaces the status file in one step, if there shall be one.
func (a *Agent) writeStatusFile() error {
	a.mu.Lock()
	path := a.cfg.StatusFile
	a.mu.Unlock()
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(a.Status(), "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(data, '\n'), durable.Private)
}
