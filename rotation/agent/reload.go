package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/rotation/workload"
)

// reload is a configuration that shall replace the one in effect.
type reload struct {
	cfg  Config
	done chan error // capacity 1
}

// Reload puts another configuration into effect. Identities that are the same in both go on: no
// new certificate, no ended stream of the Workload API, no forgotten alarm. Those that are not in
// the new one stop, and their files stay. Those that differ stop and begin anew with the stored
// certificate. If Reload fails, everything stays as it was.
//
// It waits for the identities that stop, not for the certificates of those that begin. Run must be
// running. The listeners are the business of the caller.
func (a *Agent) Reload(ctx context.Context, cfg Config) error {
	r := reload{cfg, make(chan error, 1)}
	select {
	case a.reloads <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-r.done
}

// Refused records why a new configuration is not taken. The status has it until the next Reload.
func (a *Agent) Refused(err error) {
	text := oneLine(err)
	a.mu.Lock()
	a.refused = text
	a.mu.Unlock()
	a.log.Error("the new configuration is not taken, and the one before stays in effect", "err", text)
	a.tell()
}

// plan returns what a configuration is kept by: identities that go on, and new ones that have not been
// started. It changes nothing.
func (a *Agent) plan(cfg Config) (all []*managed, err error) {
	if err := new(workload.Rules).Set(cfg.rules()); err != nil {
		return nil, err
	}
	now := a.present()
	for _, i := range cfg.Identities {
		if same := slices.IndexFunc(now, func(m *managed) bool { return reflect.DeepEqual(m.Identity, i) }); same >= 0 {
			all = append(all, now[same])
			continue
		}
		if len(i.Serves) > 0 && a.options.Served == nil {
			return nil, errors.New("nothing asks servers for their certificate (Served)")
		}
		m, err := newManaged(i, a.options)
		if err != nil {
			return nil, fmt.Errorf("identity %s: %w", i.Name, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// take makes a configuration the one in effect. It starts and stops nothing. If its rules cannot be
// resolved, there are none.
func (a *Agent) take(cfg Config, all []*managed) error {
	a.mu.Lock()
	before := a.all
	a.cfg, a.all, a.read, a.refused = cfg, all, time.Now().UTC().Truncate(time.Second), ""
	a.mu.Unlock()
	a.offers.retain(cfg.rules(), func(name string) bool {
		return slices.ContainsFunc(all, func(m *managed) bool {
			return m.Name == name && slices.ContainsFunc(before, func(b *managed) bool { return m.succeeds(b) })
		})
	})
	err := a.offers.rules.Set(cfg.rules())
	if err != nil { // a user that was there a moment ago
		_ = a.offers.rules.Set(nil) // no rule cannot be wrong
	}
	a.offers.prune()
	for _, m := range all {
		a.offers.add(m)
	}
	return err
}

// succeeds reports whether m has the certificate of b, in effect or stored. The Workload API goes on
// with it while m begins.
func (m *managed) succeeds(b *managed) bool {
	return m == b || m.Name == b.Name && m.Dir == b.Dir && m.Service == b.Service && slices.Equal(m.Names, b.Names) &&
		m.URL == b.URL && m.RootFingerprint == b.RootFingerprint && m.AuthorityName == b.AuthorityName
}

// replace puts a configuration into effect. What stops has ended before anything begins, because a
// directory has one writer.
//
// Crash story: nothing of it is on disk. The next start reads the file again.
func (a *Agent) replace(ctx context.Context, work *sync.WaitGroup, cfg Config) error {
	all, err := a.plan(cfg)
	if err != nil {
		return fmt.Errorf("configuring the agent: %w", err)
	}
	before := a.present()
	var ending []*managed
	for _, m := range before {
		if !slices.Contains(all, m) {
			m.cancel()
			ending = append(ending, m)
		}
	}
	for _, m := range ending {
		<-m.done
	}
	err = a.take(cfg, all)
	begun := 0
	for _, m := range all {
		if !slices.Contains(before, m) {
			m.start(ctx, work)
			begun++
		}
	}
	a.log.Info("the configuration was read again", "identities", len(all), "begun", begun, "ended", len(ending))
	a.tell()
	return err
}
