package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/hook"
)

const (
	leastRetry   = time.Second     // after a failed delivery
	longestRetry = 5 * time.Minute // after many
	alarmAfter   = 2               // attempts that have failed
	askTimeout   = 5 * time.Second // for one answer of a server
	leastAsk     = 50 * time.Millisecond
	longestAsk   = time.Second
)

// deliver puts each set into effect: it runs the hook, and then asks the servers whether they
// serve it. It runs until ctx ends.
//
// Crash story: the record says for which set the hook has succeeded. Killed before the hook, or
// between it and the record, the next start runs the hook for the set in effect, once more
// if need be.
func (m *managed) deliver(ctx context.Context) {
	retry := time.NewTimer(0) // the set that is there at the start
	defer retry.Stop()
	failures, tries := 0, 0 // since the last success, for the alarm; and of one set, for the pauses
	last, tried := "", ""   // ids of the sets that was delivered last, and that was tried last
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-retry.C:
		}
		s, err := m.settled(last)
		if s == nil && err == nil {
			continue // nothing has changed
		}
		if err == nil {
			if s.id != tried {
				tries, tried = 0, s.id
			}
			err = m.attempt(ctx, s)
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errSuperseded):
			retry.Reset(0)
		case err != nil:
			failures++
			tries++
			m.state.failed(m.log, failures, err)
			retry.Reset(backoff.Half(backoff.Step(leastRetry, longestRetry, tries), rand.Float64())) //nolint:gosec // G404: it spreads load
		default:
			failures, last = 0, s.id
		}
	}
}

// settled returns the set in effect, or nil if it is the last one that was delivered.
func (m *managed) settled(last string) (*set, error) {
	s, err := readSet(m.Dir)
	if err != nil {
		return nil, fmt.Errorf("reading the set to deliver: %w", err)
	}
	if s.id == last {
		return nil, nil
	}
	if err := m.tidy(); err != nil {
		m.log.Warn("a name of a file that is gone was not removed", "err", err)
	}
	return s, nil
}

// errSuperseded reports that another set came into effect before this one was proved.
var errSuperseded = errors.New("a newer set is in effect")

// attempt runs the hook for a set, if it is owed, and waits until all servers serve the set. The
// record has a set only when both are done.
func (m *managed) attempt(ctx context.Context, s *set) error {
	m.state.begin(s)
	owed := m.Hook != nil && (m.again || m.record.Owed(s.id))
	var err error
	if owed {
		err = m.runHook(ctx, s)
	}
	if err == nil {
		err = m.prove(ctx, s)
	}
	if ctx.Err() != nil || errors.Is(err, errSuperseded) { // neither says anything of the hook
		return err
	}
	m.again = err != nil
	if owed {
		err = m.record.Note(s.id, time.Now(), err)
	}
	if err == nil {
		m.state.delivered(m.log, s, len(m.Serves) > 0)
		m.source.delivered(s.leaf, addresses(m.Serves))
	}
	return err
}

// addresses returns the addresses of servers that are asked.
func addresses(all []Address) (out []string) {
	for _, a := range all {
		out = append(out, a.Address)
	}
	return out
}

// runHook runs the hook once, and tells it what has changed since the last set that was delivered.
func (m *managed) runHook(ctx context.Context, s *set) error {
	e := hook.Event{
		Dir: m.Dir, Service: s.leaf.Subject.CommonName, Serial: certs.Serial(s.leaf), NotAfter: s.leaf.NotAfter,
		Changed: changed(m.record.State().Done, s.id),
	}
	m.log.Debug("running the hook", "hook", m.Hook.describe(), "serial", e.Serial)
	output, err := m.Hook.run(ctx, e, s)
	m.state.ran(output, err)
	return err
}

// prove waits until each server serves the leaf of s, for the time that the hook gives them.
func (m *managed) prove(ctx context.Context, s *set) error {
	if len(m.Serves) == 0 {
		return nil
	}
	settle := DefaultSettle
	if m.Hook != nil {
		settle = m.Hook.Settle
	}
	limit := time.Now().Add(settle)
	for wait := leastAsk; ; wait = min(2*wait, longestAsk) {
		err := m.askAll(ctx, s)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if now, read := readSet(m.Dir); read == nil && now.id != s.id {
			return errSuperseded
		}
		if time.Now().Add(wait).After(limit) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// askAll asks each server for its certificate, and returns why one does not serve the leaf of s.
func (m *managed) askAll(ctx context.Context, s *set) error {
	var faults []error
	for n, a := range m.Serves {
		err := m.ask(ctx, a, s)
		m.state.asked(n, a.Address, err)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", a.Address, err))
		}
	}
	return errors.Join(faults...)
}

// ask compares what a server serves with the leaf of s. It shows the certificate of s if the server
// asks for one, because some servers log clients without one as errors.
func (m *managed) ask(ctx context.Context, a Address, s *set) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.ServerName, RootCAs: certs.Pool(s.roots...), Certificates: []tls.Certificate{s.cert}} // TLS 1.2 for programs that are not ours
	if names := certs.Names(s.leaf); config.ServerName == "" && len(s.leaf.DNSNames) > 0 {
		config.ServerName = names[0]
	}
	leaf, err := m.options.Served(ctx, a.Address, config)
	if err != nil {
		return fmt.Errorf("not asked which certificate it serves: %w", err)
	}
	if !leaf.Equal(s.leaf) {
		return fmt.Errorf("it serves certificate %s, not %s", certs.Serial(leaf), certs.Serial(s.leaf))
	}
	return nil
}
