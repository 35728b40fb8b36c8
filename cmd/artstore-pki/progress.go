package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// progress is a renderer that passes rows on to another one, and meanwhile keeps one line on
// a terminal that says how far the audit is. The line is erased before the other renderer
// prints the end of the report.
type progress struct {
	next audit.Renderer
	// to is the terminal, and width is how many columns it has.
	to    io.Writer
	width int
	// done is closed, once, to end the goroutine that shows the line. The goroutine closes
	// ended when it has erased the line.
	done  chan struct{}
	ended chan struct{}
	once  sync.Once

	mu   sync.Mutex // guards rows and last
	rows int
	last string // the place of the last row
}

// newProgress returns a progress on a terminal of that width, and starts the goroutine that
// shows it. The caller calls stop when the last row has passed; End does so as well.
func newProgress(next audit.Renderer, to io.Writer, width int) *progress {
	p := &progress{next: next, to: to, width: width, done: make(chan struct{}), ended: make(chan struct{})}
	go p.show()
	return p
}

// show writes the line until stop is called, and erases it then. Errors of the terminal are
// ignored: the report matters, and it goes elsewhere.
func (p *progress) show() {
	defer close(p.ended)
	wait := time.NewTimer(ui.ProgressAfter)
	defer wait.Stop()
	began, shown := time.Now(), false
	for {
		select {
		case <-p.done:
			if shown {
				_, _ = io.WriteString(p.to, ui.EraseLine)
			}
			return
		case <-wait.C:
		}
		shown = true
		_, _ = io.WriteString(p.to, ui.EraseLine+p.line(time.Since(began)))
		wait.Reset(ui.ProgressEvery)
	}
}

// line returns the text of the line; since is how long the audit has been running. The text is
// one column shorter than the terminal is wide: a full line would wrap, and ui.EraseLine erases one
// line only. The last place is a file name or an address, and is cleaned of control characters.
func (p *progress) line(since time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%d looked at in %s", p.rows, since.Round(time.Second))
	if p.last != "" {
		text += ", last " + printable.Clean(p.last)
	}
	return runewidth.Truncate(text, p.width-1, "…")
}

// stop ends the goroutine and returns when the line is erased. It may be called more than once.
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
