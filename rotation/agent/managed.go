package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/hook"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

const (
	tokenPoll   = 3 * time.Second  // between two looks at a token file
	leastPause  = 30 * time.Second // between two attempts to get a first certificate
	longestWait = 10 * time.Minute // the same, after many failures
)

// managed is an identity and what runs for it: a source that gets certificates, and deliveries of
// what it has got.
type managed struct {
	Identity
	options Options
	log     *slog.Logger
	source  *source
	record  *hook.Record  // nil without a hook; belongs to open, and then to deliver
	warned  bool          // of the directory; belongs to open
	again   bool          // the hook has to run, whatever the record says; belongs to deliver
	wake    chan struct{} // capacity 1: there may be a new generation on disk
	tried   chan struct{} // is closed after the first attempt to get a certificate
	once    sync.Once

	id      atomic.Pointer[rotation.Identity]      // nil before the first certificate
	revoked atomic.Pointer[[]*x509.RevocationList] // in effect; nil before there are any
	state   state

	cancel context.CancelFunc // these two are set by start
	done   chan struct{}
}

// newManaged uses neither disk nor network.
func newManaged(i Identity, o Options) (*managed, error) {
	m := &managed{Identity: i, options: o, log: o.Logger.With("identity", i.Name), wake: make(chan struct{}, 1), tried: make(chan struct{})}
	m.state.changed = o.changed
	src, err := newSource(m)
	if err != nil {
		return nil, err
	}
	m.source = src
	return m, nil
}

// enrolment is the configuration of the source.
func (m *managed) enrolment() enroll.Config {
	cfg := enroll.Config{
		URL: m.URL, RootFingerprint: m.RootFingerprint, AuthorityName: m.AuthorityName, KeyType: m.KeyType,
		Dir: m.Dir, Complete: m.complete, Logger: m.log, DialContext: m.options.DialContext,
	}
	if m.TokenFile != "" {
		cfg.Token = m.token
	}
	return cfg
}

// token reads the token file. One that is absent is no token, which is no failure: an operator puts
// it there when he has one.
func (m *managed) token(ctx context.Context) (secret.String, error) {
	token, err := enroll.TokenFile(m.TokenFile)(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.String{}, nil
	}
	return token, err
}

// start begins run as a part of work.
func (m *managed) start(ctx context.Context, work *sync.WaitGroup) {
	ctx, m.cancel = context.WithCancel(ctx)
	m.done = make(chan struct{})
	work.Go(func() {
		defer close(m.done)
		m.run(ctx)
	})
}

// run keeps the identity until ctx ends, and has ended all it has started when it returns. A
// failure of any kind is an entry of the status and another attempt later.
func (m *managed) run(ctx context.Context) {
	defer func() {
		if id := m.id.Load(); id != nil {
			_ = id.Close() // returns nil
		}
		if m.record != nil {
			_ = m.record.Close() // nothing is buffered
		}
	}()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { m.watchToken(ctx) })
	for failures := 0; ; failures++ {
		err := m.open(ctx)
		m.once.Do(func() { close(m.tried) })
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		m.state.setProblem(m.log, err)
		m.pause(ctx, failures)
	}
	m.state.setProblem(m.log, nil)
	m.deliver(ctx)
}

// open prepares the directory and gets the first certificate: the stored one, or a new one.
func (m *managed) open(ctx context.Context) error {
	if err := m.prepare(ctx); err != nil {
		return err
	}
	waiting, done := context.WithCancel(ctx)
	defer done()
	go func() { // an authority that does not answer is no end of open, and must be seen all the same
		select {
		case <-waiting.Done():
		case <-time.After(firstAnswer):
			m.once.Do(func() { close(m.tried) })
		}
	}()
	id, err := rotation.Open(ctx, rotation.Config{Source: m.source, Logger: m.log})
	if err != nil {
		return err
	}
	m.id.Store(id)
	m.options.offer(m)
	return nil
}

// firstAnswer is how long the agent waits for a first certificate before it says that it has
// started.
const firstAnswer = 20 * time.Second

// prepare makes the directory fit for the next generation. Nothing of it needs the authority.
func (m *managed) prepare(ctx context.Context) error {
	if err := m.Access.makeDir(m.Dir); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	if found := fileperm.Parents(filepath.Join(m.Dir, currentName)); len(found) > 0 && !m.warned {
		m.warned = true
		m.log.Warn("another user can change what the agent writes here", "dir", m.Dir, "why", oneLine(errors.New(found[0])))
	}
	s, err := readSet(m.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = nil
	case err != nil:
		m.log.Warn("the stored set cannot be used", "err", err)
		s = nil
	}
	if err := m.openRecord(ctx, s); err != nil {
		return err
	}
	if s == nil {
		if _, err := os.Stat(filepath.Join(m.Dir, certName)); err != nil && m.tokenAbsent() {
			return fmt.Errorf("waiting for an enrolment token in %s: %w", m.TokenFile, enroll.ErrNoToken)
		}
		return nil
	}
	outdated, err := m.outdated(s)
	if err != nil || !outdated {
		return err
	}
	return m.source.rewrite()
}

// openRecord opens the record of the hook, with the set that is there before this process changes
// anything.
func (m *managed) openRecord(ctx context.Context, s *set) (err error) {
	if m.Hook == nil || m.record != nil {
		return nil
	}
	r, err := openFree(ctx, m.Dir)
	if err != nil {
		return err
	}
	before := ""
	if s != nil {
		before = s.id
	}
	if err := r.Start(before); err != nil {
		return errors.Join(err, r.Close())
	}
	m.record = r
	return nil
}

const (
	busyTries = 20
	busyPause = 50 * time.Millisecond
)

// openFree opens the record of a directory. A process that is being started has copies of all open files
// until it executes its program, and so can keep the lock of a record that was closed a
// moment ago: openFree tries again for a second.
func openFree(ctx context.Context, dir string) (*hook.Record, error) {
	for n := 1; ; n++ {
		r, err := hook.Open(dir)
		if !errors.Is(err, hook.ErrBusy) || n == busyTries {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(busyPause):
		}
	}
}

// tokenAbsent reports that an operator has yet to put a token in place.
func (m *managed) tokenAbsent() bool {
	if m.TokenFile == "" {
		return false
	}
	_, err := os.Stat(m.TokenFile)
	return errors.Is(err, fs.ErrNotExist)
}

// pause waits before the next attempt to get a first certificate. A new token ends it: that is what
// an operator does about a failure.
func (m *managed) pause(ctx context.Context, failures int) {
	wait := backoff.Half(backoff.Step(2*leastPause, longestWait, failures), rand.Float64()) //nolint:gosec // G404: it spreads load
	if m.tokenAbsent() {                                                                    // nothing is asked for meanwhile
		wait = tokenPoll
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	look := time.NewTicker(tokenPoll)
	defer look.Stop()
	for before := m.tokenVersion(); ; {
		select {
		case <-ctx.Done():
			return
		case <-limit.C:
			return
		case <-look.C:
			if m.tokenVersion() != before {
				_ = m.source.renewed() // its configuration was good before
				return
			}
		}
	}
}

// tokenVersion differs when the token file was written.
func (m *managed) tokenVersion() string {
	info, err := os.Stat(m.TokenFile)
	if m.TokenFile == "" || err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size(), info.Mode())
}

// watchToken starts the source anew when there is a new token and the certificate is not renewed:
// the pause after a failure may be long.
func (m *managed) watchToken(ctx context.Context) {
	if m.TokenFile == "" {
		return
	}
	look := time.NewTicker(tokenPoll)
	defer look.Stop()
	for before := m.tokenVersion(); ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		now := m.tokenVersion()
		if now != before && now != "" && m.source.renewals().RenewalFailures > 0 {
			m.source.restart(ctx)
		}
		before = now
	}
}
