package ingestclient

import (
	"sync"
	"time"
)

// rateWindow is the time over which the minimum rate is averaged. Bodies move in
// pieces of 32 KiB into socket buffers: over a shorter time the rate jumps.
const rateWindow = time.Minute

// progressWatch cancels an attempt that makes no progress. There is no total timeout,
// because that would demand a higher rate of larger files. It starts with the first
// byte, because waiting for a free connection is no stall.
type progressWatch struct {
	s      *settings
	cancel func(error)

	mu          sync.Mutex
	timer       *time.Timer
	waiting     bool // for the answer; else bytes are moving
	stopped     bool
	last        time.Time // of the last byte, or when the wait began
	moved       int64
	window      time.Time // begin of the rate window
	base        int64     // moved at that time
	suspendedAt time.Time // since then our own limit holds the bytes; zero if it does not
}

func newWatch(s *settings, cancel func(error)) *progressWatch {
	return &progressWatch{s: s, cancel: cancel}
}

// begin starts the clock if it does not run yet.
func (w *progressWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil || w.stopped {
		return
	}
	w.last = time.Now()
	w.window = w.last
	w.timer = time.AfterFunc(w.left(w.last), w.fire)
}

func (w *progressWatch) move(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 {
		w.moved += int64(n)
		w.last = time.Now()
	}
}

// suspend stops the clocks: the client itself waits, for Config.MaxRate.
func (w *progressWatch) suspend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.suspendedAt = time.Now()
}

// unsuspend lets the clocks continue where they stopped.
func (w *progressWatch) unsuspend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	away := time.Since(w.suspendedAt)
	w.suspendedAt = time.Time{}
	w.last, w.window = w.last.Add(away), w.window.Add(away)
}

// expectResponse starts the response timeout: all of the request is sent.
func (w *progressWatch) expectResponse() { w.setMode(true) }

// expectContent starts the stall timeout and the rate again, for the content of the answer.
func (w *progressWatch) expectContent() { w.setMode(false) }

func (w *progressWatch) setMode(waiting bool) {
	w.begin()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	// Both clocks start anew: what moved before does not count.
	w.waiting = waiting
	w.last = time.Now()
	w.window, w.base = w.last, w.moved
	w.timer.Reset(w.left(w.last))
}

func (w *progressWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// left returns the time until the next decision. The caller holds w.mu.
func (w *progressWatch) left(now time.Time) time.Duration {
	if w.waiting {
		return w.s.ResponseTimeout - now.Sub(w.last)
	}
	d := w.s.StallTimeout - now.Sub(w.last)
	if w.s.MinRate > 0 {
		d = min(d, rateWindow-now.Sub(w.window))
	}
	return d
}

func (w *progressWatch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	now := time.Now()
	if !w.suspendedAt.IsZero() {
		w.timer.Reset(w.left(w.suspendedAt)) // the clocks are stopped: the same time is left
		return
	}
	switch {
	case w.waiting && now.Sub(w.last) >= w.s.ResponseTimeout:
		w.cancel(ErrNoAnswer)
		return
	case !w.waiting && now.Sub(w.last) >= w.s.StallTimeout:
		w.cancel(ErrStalled)
		return
	case !w.waiting && now.Sub(w.window) >= rateWindow:
		if float64(w.moved-w.base) < float64(w.s.MinRate)*rateWindow.Seconds() {
			w.cancel(ErrTooSlow)
			return
		}
		w.window, w.base = now, w.moved
	}
	w.timer.Reset(w.left(now))
}
