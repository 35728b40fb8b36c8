package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/printable"
)

const (
	progressAfter = 500 * time.Millisecond // what is over sooner shows nothing
	progressEvery = 200 * time.Millisecond
	eraseLine     = "\r\x1b[K"
)

// progress passes rows on, and meanwhile keeps one line on a terminal that says
// how far the audit is. The line is gone before anything else is printed.
type progress struct {
	next  audit.Renderer
	to    io.Writer
	width int
	done  chan struct{}
	ended chan struct{}
	once  sync.Once

	mu   sync.Mutex
	rows int
	last string // place
}

// newProgress begins to show the line. The caller calls stop, after the last row.
func newProgress(next audit.Renderer, to io.Writer, width int) *progress {
	p := &progress{next: next, to: to, width: width, done: make(chan struct{}), ended: make(chan struct{})}
	go p.show()
	return p
}

// show writes the line until stop, and at last erases it.
func (p *progress) show() {
	defer close(p.ended)
	wait := time.NewTimer(progressAfter)
	defer wait.Stop()
	began, shown := time.Now(), false
	for {
		select {
		case <-p.done:
			if shown {
				_, _ = io.WriteString(p.to, eraseLine) // nobody is left to tell
			}
			return
		case <-wait.C:
		}
		shown = true
		_, _ = io.WriteString(p.to, eraseLine+p.line(time.Since(began)))
		wait.Reset(progressEvery)
	}
}

// line is shorter than the terminal is wide.
func (p *progress) line(since time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%d looked at in %s", p.rows, since.Round(time.Second))
	if p.last != "" {
		text += ", last " + printable.Clean(p.last)
	}
	return runewidth.Truncate(text, p.width-1, "…") // a full line would wrap
}

// stop erases the line; it may be called more than once.
func (p *progress) stop() {
	p.once.Do(func() { close(p.done) })
	<-p.ended
}

// Row implements [audit.Renderer].
func (p *progress) Row(r *audit.Row) error {
	p.mu.Lock()
	p.rows++
	p.last = r.Place
	p.mu.Unlock()
	return p.next.Row(r)
}

// End implements [audit.Renderer].
func (p *progress) End(s *audit.Summary) error {
	p.stop()
	return p.next.End(s)
}
