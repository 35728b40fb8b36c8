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

	changed func()
}

// Agent keeps the identities of a configuration. [New] makes it.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	all     []*managed
	changes chan struct{} // capacity 1: the status has changed
	started time.Time
}

// New makes an agent. It uses neither disk nor network.
func New(cfg Config, o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	a := &Agent{cfg: cfg, log: o.Logger, changes: make(chan struct{}, 1), started: time.Now().UTC().Truncate(time.Second)}
	o.changed = func() {
		select {
		case a.changes <- struct{}{}:
		default:
		}
	}
	for _, i := range cfg.Identities {
		if len(i.Serves) > 0 && o.Served == nil {
			return nil, errors.New("configuring the agent: nothing asks servers for their certificate (Served)")
		}
		m, err := newManaged(i, o)
		if err != nil {
			return nil, fmt.Errorf("configuring the agent: identity %s: %w", i.Name, err)
		}
		a.all = append(a.all, m)
	}
	return a, nil
}

// Run keeps all identities until ctx ends. A failure of one is in its status, and is no error.
func (a *Agent) Run(ctx context.Context) error {
	var work sync.WaitGroup
	for _, m := range a.all {
		work.Go(func() { m.run(ctx) })
	}
	work.Go(func() { a.writeStatus(ctx) })
	work.Wait()
	return ctx.Err()
}

// Ready waits until each identity has a certificate, or a first attempt to get one has failed.
func (a *Agent) Ready(ctx context.Context) error {
	for _, m := range a.all {
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
	for _, m := range a.all {
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
	s := Status{StartedAt: a.started, Identities: make([]IdentityStatus, len(a.all))}
	for n, m := range a.all {
		s.Identities[n] = m.status()
	}
	return s
}

// Identities returns those that have a certificate, by name.
func (a *Agent) Identities() map[string]*rotation.Identity {
	out := map[string]*rotation.Identity{}
	for _, m := range a.all {
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
	if a.cfg.StatusFile == "" {
		return
	}
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

// writeStatusFile replaces the status file in one step.
func (a *Agent) writeStatusFile() error {
	data, err := json.MarshalIndent(a.Status(), "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(a.cfg.StatusFile, append(data, '\n'), durable.Private)
}
