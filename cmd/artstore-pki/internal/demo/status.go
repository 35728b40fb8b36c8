package demo

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

const (
	liveEvery  = 500 * time.Millisecond // on a terminal, where each line replaces the one before
	plainEvery = 10 * time.Second       // elsewhere, where each line stays
)

// status shows the running demo on stderr: on a terminal one line that is written again and again,
// elsewhere a line now and then.
type status struct {
	u    *ui.UI
	w    *stack
	load *loadGenerator
	plan *plan

	live  bool
	width int
	quit  chan struct{}
	ended sync.WaitGroup
	mu    sync.Mutex // guards the line on the terminal: events and the ticker write it
}

// startStatus starts the goroutine that prints. The caller ends it with stop.
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

// stop ends the goroutine, waits for it, and prints the last line so that it stays.
func (s *status) stop() {
	close(s.quit)
	s.ended.Wait()
	s.erase()
	s.u.Infof("%s", s.line())
}

// event prints a line that stays, with the time since the start of the demo.
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
	_, _ = fmt.Fprintf(s.u.Err, "\r\x1b[K%s", line) // a terminal that is gone must not end the demo
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

// line returns how far the demo is: uploads, tokens, rotations of each service, the next step.
func (s *status) line() string {
	var rotations []string
	for _, service := range s.w.services {
		rotations = append(rotations, fmt.Sprintf("%s %d", service.short, service.rotations.Load()))
	}
	return fmt.Sprintf("%s  uploads %d (%s)  failures %d  tokens %d  rotations: %s  next: %s", s.clock(),
		s.load.Uploads.Load(), ui.Size(s.load.Bytes.Load()), s.load.Failures.Load(),
		s.w.client.Stats().TokenFetches, strings.Join(rotations, " "), s.plan.next())
}
