package ingestclient

import "time"

// onRotation is called after each rotation. It never blocks: one goroutine does the
// work, and goes on as long as there was another rotation.
func (m *tokenManager) onRotation() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.handoverPending = true
	select {
	case m.wake <- struct{}{}:
	default:
	}
	if !m.handoverRunning {
		m.handoverRunning = true
		m.running.Go(m.handover)
	}
}

// hasNewGeneration reports whether there was a rotation since it was called last. If
// not, the goroutine of handover ends.
func (m *tokenManager) hasNewGeneration() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.handoverPending || m.closed {
		m.handoverRunning = false
		return false
	}
	m.handoverPending = false
	select {
	case <-m.wake:
	default:
	}
	return true
}

// handover moves to the identity's current generation until there is no newer one.
// It skips generations that were replaced meanwhile.
func (m *tokenManager) handover() {
	for m.hasNewGeneration() {
		l := m.id.lease()
		if l.number == m.cur.Load().lease.number || !m.moveTo(l) {
			l.unref()
		}
	}
}

// moveTo makes l current. It fetches a token over l first; until then requests use the old
// credential, whose token is refreshed as long as its certificate is valid. It returns false
// if there is a newer generation, or the client is closed.
func (m *tokenManager) moveTo(l *lease) bool {
	var fail failure // of this lease alone: the endpoint may refuse the new certificate and still take the old one
	for m.ctx.Err() == nil {
		f, busy, moved := m.planHandover(l)
		if moved {
			return true
		}
		if busy {
			<-f.done // ends with the client at the latest
			continue
		}
		t, err := m.requestToken(l, &fail)
		m.finishFetch(f, l, t, err)
		if err == nil {
			return true
		}
		if !m.pause(time.Until(fail.rest)) {
			return false
		}
	}
	return false
}

// planHandover decides how to move to l. If moved, it is done: no token depends on the old
// certificate. If busy, f is another token request, whose end the caller waits for. Else the
// caller makes the token request f.
func (m *tokenManager) planHandover(l *lease) (f *tokenFetch, busy, moved bool) {
	m.mu.Lock()
	if m.inflight != nil {
		defer m.mu.Unlock()
		return m.inflight, true, false
	}
	now := time.Now()
	c := m.cur.Load()
	if c.token.stateAt(now) != expired && c.token.bound && !c.lease.expired(now) {
		defer m.mu.Unlock()
		m.inflight = &tokenFetch{done: make(chan struct{})}
		return m.inflight, false, false
	}
	// A token that was never fetched, has expired or was rejected is not replaced
	// here: an idle client sends no token requests, however often it rotates.
	old := m.publish(l, withoutBinding(c.token, now))
	m.mu.Unlock()
	m.retire(old, l)
	return nil, false, true
}

// dropRetired gives up a lease that the identity has retired: it was superseded, and
// its grace period or its certificate ended before a token was fetched over the
// successor. Requests use the current generation then, and fetch a token on demand.
func (m *tokenManager) dropRetired(retired *lease) {
	retired.gone.Store(true)
	if m.cur.Load().lease != retired {
		return
	}
	l := m.id.lease()
	m.mu.Lock()
	c := m.cur.Load()
	if m.closed || c.lease != retired || l.number == retired.number {
		m.mu.Unlock()
		l.unref()
		return
	}
	old := m.publish(l, withoutBinding(c.token, time.Now()))
	m.mu.Unlock()
	m.retire(old, l)
}

// withoutBinding returns t if it can be used with another certificate, else nil.
func withoutBinding(t *token, now time.Time) *token {
	if t.stateAt(now) == expired || t.bound {
		return nil
	}
	return t
}

// pause waits before the next token request: d, or less if the old certificate ends
// before, and failMax at most, so that a changed secret is noticed. False means that
// there was another rotation, or that the client is closed.
func (m *tokenManager) pause(d time.Duration) bool {
	d = min(d, failMax)
	if end := m.cur.Load().lease.notAfter; !end.IsZero() {
		d = min(d, max(spacing, time.Until(end)))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-m.wake:
		return false
	case <-m.ctx.Done():
		return false
	}
}
