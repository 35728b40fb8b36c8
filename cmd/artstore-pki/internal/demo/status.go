package demo

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

const (
	liveEvery  = 500 * time.Millisecond // a terminal's live line
	plainEvery = 10 * time.Second       // a log's line
)

// status shows the running demo: one live line on a terminal, plain lines elsewhere.
type status struct {
	u    *ui.UI
	w    *stack
	load *loadGenerator
	plan *plan

	live  bool
	width int
	quit  chan struct{}
	ended sync.WaitGroup
	mu    sync.Mutex // guards the terminal line: events and the ticker both write
}

// startStatus begins the display. It ends with stop.
func startStatus(u *ui.UI, w *stack, l *loadGenerator, p *plan) *status {
	s := &status{u: u, w: w, load: l, plan: p, quit: make(chan struct{})}
	s.width, s.live = u.Terminal(u.Err)
	s.ended.Go(s.run)
	return s
}

// run prints a line at each tick, until stop.
func (s *status) run() {
	pace := plainEvery
	if s.live {
		pace = liveEvery
	}
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-ticker.C:
			s.show(s.line())
		}
	}
}

// stop ends the display and leaves the last line standing.
func (s *status) stop() {
	close(s.quit)
	s.ended.Wait()
	s.erase()
	s.u.Infof("%s", s.line())
}

// event prints a line that stays.
func (s *status) event(text string) {
	s.erase()
	s.u.Infof("%s  %s", s.clock(), text)
}

// show replaces the live line, or prints a plain one. A line as wide as the terminal
// would wrap, and then could not be erased.
func (s *status) show(line string) {
	if !s.live {
		s.u.Infof("%s", line)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := []rune(line); len(r) >= s.width {
		line = string(r[:s.width-1])
	}
	_, _ = fmt.Fprintf(s.u.Err, "\r\x1b[K%s", line) // a vanished terminal must not end the demo
}

// erase clears the live line, so that another line can take its place.
func (s *status) erase() {
	if !s.live {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprint(s.u.Err, "\r\x1b[K")
}

// clock is the time since the plan began, in minutes and seconds.
func (s *status) clock() string {
	d := time.Since(s.plan.start).Round(time.Second)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// line says how far everything is.
func (s *status) line() string {
	var rotations []string
	for _, service := range s.w.services {
		rotations = append(rotations, fmt.Sprintf("%s %d", service.short, service.rotations.Load()))
	}
	return fmt.Sprintf("%s  uploads %d (%s)  failures %d  tokens %d  rotations: %s  next: %s", s.clock(),
		s.load.Uploads.Load(), ui.Size(s.load.Bytes.Load()), s.load.Failures.Load(),
		s.w.client.Stats().TokenFetches, strings.Join(rotations, " "), s.plan.next())
}
