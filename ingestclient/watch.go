package ingestclient

import (
	"sync"
	"time"
)

// rateWindow is the time over which the minimum rate is averaged. Bodies move in
// pieces of 32 KiB and sink into socket buffers, so a short window sees nothing but jumps.
const rateWindow = time.Minute

// watch ends an attempt that makes no progress. It has no limit on the whole:
// a total timeout is a bandwidth floor that grows with the file. Before the
// first byte it is silent, because waiting for a free connection is no stall.
type watch struct {
	s      *settings
	cancel func(error)

	mu      sync.Mutex
	timer   *time.Timer
	waiting bool // for the answer; else bytes are moving
	stopped bool
	last    time.Time // of the last byte, or when the wait began
	moved   int64
	window  time.Time // begin of the rate window
	base    int64     // moved at that time
	held    time.Time // since then our own limit holds the bytes; zero if it does not
}

func newWatch(s *settings, cancel func(error)) *watch { return &watch{s: s, cancel: cancel} }

// begin starts the clock if it does not run yet.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil || w.stopped {
		return
	}
	w.last = time.Now()
	w.window = w.last
	w.timer = time.AfterFunc(w.left(w.last), w.fire)
}

func (w *watch) move(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 {
		w.moved += int64(n)
		w.last = time.Now()
	}
}

// hold stops the clocks: what follows is a wait of our own making.
func (w *watch) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = time.Now()
}

// release lets them go on where they stopped.
func (w *watch) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	away := time.Since(w.held)
	w.held = time.Time{}
	w.last, w.window = w.last.Add(away), w.window.Add(away)
}

// await switches to the response deadline: everything is sent.
func (w *watch) await() { w.turn(true) }

// resume switches back: the answer's content comes in.
func (w *watch) resume() { w.turn(false) }

func (w *watch) turn(waiting bool) {
	w.begin()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	// A new phase owes nothing to the one before: both clocks start anew.
	w.waiting = waiting
	w.last = time.Now()
	w.window, w.base = w.last, w.moved
	w.timer.Reset(w.left(w.last))
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// left is the time until there is something to decide. The caller holds w.mu.
func (w *watch) left(now time.Time) time.Duration {
	if w.waiting {
		return w.s.ResponseTimeout - now.Sub(w.last)
	}
	d := w.s.StallTimeout - now.Sub(w.last)
	if w.s.MinRate > 0 {
		d = min(d, rateWindow-now.Sub(w.window))
	}
	return d
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	now := time.Now()
	if !w.held.IsZero() {
		w.timer.Reset(w.left(w.held)) // what was left when the clocks stopped is left still
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
