package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// source is an enroll.Source that can be told to renew now, and to begin anew. It tells the
// delivery of everything that has come into effect on disk: also of a newer signature of a list,
// which is no new generation for rotation.
type source struct {
	m      *managed
	cur    atomic.Pointer[enroll.Source]
	orders chan order
	proved atomic.Pointer[proof] // the last one; nil before there is one
}

// proof says which certificate each server has served when it was asked.
type proof struct {
	leaf      *x509.Certificate
	addresses []string
	at        time.Time
}

// order tells a running source to renew, or else to begin anew.
type order struct {
	renew bool
	done  chan error // capacity 1
}

// newSource returns the source of an identity. The error is that of its configuration.
func newSource(m *managed) (*source, error) {
	s := &source{m: m, orders: make(chan order)}
	return s, s.renewed()
}

// renewed makes a new enroll.Source, which knows nothing of failures of the one before.
func (s *source) renewed() error {
	src, err := enroll.New(s.m.enrolment())
	if err == nil {
		s.cur.Store(src)
		s.tell()
	}
	return err
}

// delivered lets the authority know that the servers serve a leaf now.
func (s *source) delivered(leaf *x509.Certificate, addresses []string) {
	s.proved.Store(&proof{leaf, addresses, time.Now()})
	s.tell()
}

// tell gives the last proof to the present enroll.Source, which reports it to the authority.
func (s *source) tell() {
	if p := s.proved.Load(); p != nil {
		s.cur.Load().Delivered(p.leaf, p.addresses, p.at)
	}
}

// NextRenewal is for the status of the identity.
func (s *source) NextRenewal() time.Time { return s.cur.Load().NextRenewal() }

// RevokedError is for the check of the identity.
func (s *source) RevokedError() error { return s.cur.Load().RevokedError() }

// renewals returns the status of the present enroll.Source.
func (s *source) renewals() enroll.Status { return s.cur.Load().Status() }

// rewrite stores the present identity as a new generation.
func (s *source) rewrite() error { return s.cur.Load().Rewrite() }

// Watch implements [rotation.Source].
func (s *source) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	return s.WatchObserved(ctx, yield, nil)
}

// WatchObserved runs the source until ctx ends. An order stops it, does what is ordered as the one
// writer of the directory, and starts it again.
func (s *source) WatchObserved(ctx context.Context, yield func(rotation.Material) error, o rotation.Observer) error {
	for {
		running, stop := context.WithCancel(ctx)
		ended, src := make(chan error, 1), s.cur.Load()
		go func() { ended <- src.WatchObserved(running, s.waking(yield), o) }()
		select {
		case err := <-ended:
			stop()
			return err
		case given := <-s.orders:
			stop()
			if err := <-ended; ctx.Err() != nil {
				return err
			}
			given.done <- s.obey(ctx, given)
		}
	}
}

// obey does what an order says while the source is stopped.
func (s *source) obey(ctx context.Context, o order) error {
	if err := s.renewed(); err != nil || !o.renew {
		return err
	}
	_, err := enroll.Renew(ctx, s.m.enrolment())
	return err
}

// waking wakes the delivery after each set that the gate has accepted, and offers its revocation
// lists, which a generation does not have.
func (s *source) waking(yield func(rotation.Material) error) func(rotation.Material) error {
	return func(m rotation.Material) error {
		err := yield(m)
		if err == nil {
			s.m.revoked.Store(&m.Revoked)
			s.m.options.offer(s.m)
			select {
			case s.m.wake <- struct{}{}:
			default:
			}
		}
		return err
	}
}

// errNotRunning reports an order to a source that has no certificate yet.
var errNotRunning = errors.New("there is no certificate yet: the agent asks for one")

// restart lets a running source begin anew, with no memory of failures. One that is not running is
// about to.
func (s *source) restart(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tokenPoll)
	defer cancel()
	select {
	case s.orders <- order{done: make(chan error, 1)}: // its failure is in the status of the source
	case <-ctx.Done():
	}
}

// orderWait bounds how long an order waits for a source that is being started.
const orderWait = time.Minute

// give gives a running source an order and waits until it is done.
func (s *source) give(ctx context.Context, o order) error {
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	if s.m.id.Load() == nil {
		return errNotRunning
	}
	o.done = make(chan error, 1)
	select {
	case s.orders <- o:
	case <-ctx.Done():
		return fmt.Errorf("the source is not running: %w", ctx.Err())
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
