package ingestclient

import "time"

// changed is called after each rotation. It never blocks: the work is done by
// one goroutine that looks again as long as there is news.
func (k *keeper) changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.again = true
	select {
	case k.wake <- struct{}{}:
	default:
	}
	if !k.taking {
		k.taking = true
		k.running.Go(k.takeover)
	}
}

// news reports whether there is something to take over, and if not ends the goroutine's term.
func (k *keeper) news() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.again || k.closed {
		k.taking = false
		return false
	}
	k.again = false
	select {
	case <-k.wake:
	default:
	}
	return true
}

// takeover moves to the identity's current generation until there is no news.
// Generations that came and went meanwhile are skipped: only the newest counts.
func (k *keeper) takeover() {
	for k.news() {
		l := k.id.lease()
		if l.number == k.cur.Load().lease.number || !k.moveTo(l) {
			l.done()
		}
	}
}

// moveTo makes l current: make before break. The token is fetched over l first;
// until it is here, requests go on with the old pair, and that pair keeps
// refreshing itself while its certificate is valid. False means that l is no
// longer what to move to, or the end.
func (k *keeper) moveTo(l *lease) bool {
	var fail failure // of this lease alone: the endpoint may refuse the new certificate and still take the old one
	for k.life.Err() == nil {
		f, busy, moved := k.board(l)
		if moved {
			return true
		}
		if busy {
			<-f.done // ends with the client at the latest
			continue
		}
		t, err := k.ask(l, &fail)
		k.land(f, l, t, err)
		if err == nil {
			return true
		}
		if !k.pause(time.Until(fail.rest)) {
			return false
		}
	}
	return false
}

// board decides how to get to l: at once, if there is no token that depends on
// the old certificate; after the flight that is up; or with a flight of its own.
func (k *keeper) board(l *lease) (f *flight, busy, moved bool) {
	k.mu.Lock()
	if k.flight != nil {
		defer k.mu.Unlock()
		return k.flight, true, false
	}
	now := time.Now()
	c := k.cur.Load()
	if c.token.phase(now) != dead && c.token.bound && !c.lease.expired(now) {
		defer k.mu.Unlock()
		k.flight = &flight{done: make(chan struct{})}
		return k.flight, false, false
	}
	// A token that was never fetched, has died or was rejected is not replaced
	// here: an idle client that rotates for weeks asks for none.
	old := k.publish(l, carried(c.token, now))
	k.mu.Unlock()
	k.retire(old, l)
	return nil, false, true
}

// abandon gives up a lease that the identity has retired: it was superseded,
// and then its grace or its certificate ended before a token for the successor
// could be had. Requests go on with what is current, and a token on demand.
func (k *keeper) abandon(retired *lease) {
	retired.gone.Store(true)
	if k.cur.Load().lease != retired {
		return
	}
	l := k.id.lease()
	k.mu.Lock()
	c := k.cur.Load()
	if k.closed || c.lease != retired || l.number == retired.number {
		k.mu.Unlock()
		l.done()
		return
	}
	old := k.publish(l, carried(c.token, time.Now()))
	k.mu.Unlock()
	k.retire(old, l)
}

// carried is what remains of a token under another certificate.
func carried(t *token, now time.Time) *token {
	if t.phase(now) == dead || t.bound {
		return nil
	}
	return t
}

// pause waits before the next try, at most as long as the old certificate lives
// and a secret that has changed may go unnoticed. False means newer news, or the end.
func (k *keeper) pause(d time.Duration) bool {
	d = min(d, failMax)
	if end := k.cur.Load().lease.notAfter; !end.IsZero() {
		d = min(d, max(spacing, time.Until(end)))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.wake:
		return false
	case <-k.life.Done():
		return false
	}
}
