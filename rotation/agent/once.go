package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

const (
	onceTogether = 4               // identities at a time
	onceAttempts = 3               // of a delivery
	onceLimit    = 2 * time.Minute // for the requests of one identity
	reportLimit  = 10 * time.Second
)

// Once gets the certificates that are missing, renews those that are due, delivers what is not
// delivered, and returns. The error has a line for each identity that failed.
func (a *Agent) Once(ctx context.Context) error {
	all := a.present()
	faults := make([]error, len(all))
	room := make(chan struct{}, onceTogether)
	var work sync.WaitGroup
	for n, m := range all {
		work.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if err := m.runOnce(ctx); err != nil {
				faults[n] = fmt.Errorf("identity %s: %s", m.Name, oneLine(err))
			}
		})
	}
	work.Wait()
	return errors.Join(append(faults, a.writeStatusFile())...)
}

// runOnce does for one identity what is due. Files of an earlier run may not be delivered yet, so
// they are delivered also if the renewal fails.
func (m *managed) runOnce(ctx context.Context) error {
	err := m.obtainOnce(ctx)
	if m.record != nil {
		defer func() { _ = m.record.Close() }() // nothing is buffered
	}
	s, unread := readSet(m.Dir)
	if unread != nil {
		if err == nil {
			err = fmt.Errorf("reading the set to deliver: %w", unread)
		}
		m.state.setProblem(m.log, err)
		return err
	}
	m.state.setProblem(m.log, err)
	if m.Hook != nil && m.record == nil {
		return err // whether the hook is owed is not known: another process has the record, for instance
	}
	err = errors.Join(err, m.tidy(), m.deliverOnce(ctx, s)) // the stored set may be owed, whatever became of the renewal
	m.reportOnce(ctx)
	return err
}

// reportOnce tells the authority what was proved, by a request of its own. A failure is no failure of the
// identity: nothing is decided by the report.
func (m *managed) reportOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	err := m.source.cur.Load().Report(ctx)
	if e, ok := errors.AsType[*enroll.Error](err); ok && e.Status == http.StatusNotFound {
		return // such as a stock step-ca
	}
	if err != nil {
		m.log.Warn("the authority was not told what is served", "err", oneLine(err))
	}
}

// obtainOnce renews a stored certificate if it is due, or enrols if nothing is stored. A token that
// is there enrols anew if the stored one has expired and is not renewed any more.
func (m *managed) obtainOnce(ctx context.Context) error {
	if err := m.prepare(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, onceLimit)
	defer cancel()
	if enroll.Inspect(m.Dir).Chain == nil {
		_, err := enroll.Issue(ctx, m.enrolment())
		return err
	}
	_, _, err := enroll.RenewIfDue(ctx, m.enrolment())
	if err == nil || m.TokenFile == "" || m.tokenAbsent() {
		return err
	}
	if end := enroll.Inspect(m.Dir).Chain[0].NotAfter; time.Now().Before(end) {
		return err
	}
	_, again := enroll.Issue(ctx, m.enrolment()) // expired, and a token is there
	if again == nil {
		return nil
	}
	return errors.Join(err, again)
}

// deliverOnce tries a delivery a few times, for programs that are just starting.
func (m *managed) deliverOnce(ctx context.Context, s *set) error {
	for failures := 1; ; failures++ {
		err := m.attempt(ctx, s)
		if err == nil || ctx.Err() != nil {
			return err
		}
		m.state.failed(m.log, failures, err)
		if failures == onceAttempts {
			return err
		}
		t := time.NewTimer(backoff.Step(leastRetry, longestRetry, failures-1))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}
