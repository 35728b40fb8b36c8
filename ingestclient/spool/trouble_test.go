package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// fakeElement is a Storage Element in memory, because a synctest bubble must not use
// sockets, and the test takes hours of its clock. It answers as ArtStore's Go element
// does, which e2e tests check.
type fakeElement struct {
	healed atomic.Bool
	ready  error // of a probe
	upload error // of a file that was sent completely

	mu    sync.Mutex
	store map[string]int // names, and how often
}

var errFailed = &ingestclient.RequestError{
	Op: "uploading", Status: 500, Attempt: 1, Err: fmt.Errorf("%w: %w", ingestclient.ErrAmbiguous, ingestclient.ErrServer),
}

func (e *fakeElement) Upload(ctx context.Context, content ingestclient.Content, _ ingestclient.Meta) (*ingestclient.File, error) {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !e.healed.Load() && e.upload != nil {
		return nil, e.upload
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.store[content.Name()]++
	return &ingestclient.File{FileID: content.Name(), Name: content.Name()}, nil
}

func (e *fakeElement) Elements(context.Context) ([]ingestclient.Element, error) {
	return []ingestclient.Element{{URL: "https://element"}}, nil
}

func (e *fakeElement) Probe(context.Context, string) error {
	if e.healed.Load() {
		return nil
	}
	return e.ready
}

func (e *fakeElement) stored() (files, twice int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.store {
		if n > 1 {
			twice++
		}
	}
	return len(e.store), twice
}

// An element in trouble costs no file: files wait in the directory while it says
// that it is full or failing, and when it takes files again all of them go,
// without a human. One that says that it is ready and loses what it is sent gets
// few.
func TestElementInTrouble(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	const files, workers = 200, 8
	full := &ingestclient.RequestError{Op: "probing", Status: 503, Err: fmt.Errorf("%w: %w", ingestclient.ErrUnavailable, ingestclient.ErrFull)}
	for _, tt := range []struct {
		name   string
		ready  error
		upload error
		lasts  time.Duration
		aside  int // at most
		reason string
	}{
		{"full from the start", full, errFailed, 10 * time.Minute, 0, "full"},
		{"fails and says so", &ingestclient.RequestError{Op: "probing", Status: 503, Err: ingestclient.ErrUnavailable}, errFailed, time.Hour, 0, "failing"},
		{"fails and says that it is ready", nil, errFailed, time.Hour, workers + 3, "failing"},
		{"has no token", &ingestclient.AuthError{Temporary: true, Err: ingestclient.ErrTokenEndpoint}, errFailed, time.Hour, 0, "token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for i := range files {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d", i)), []byte("content"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			log := &lines{}
			synctest.Test(t, func(t *testing.T) {
				element := &fakeElement{ready: tt.ready, upload: tt.upload, store: map[string]int{}}
				s, err := Open(Config{
					Dir: dir, Uploader: element, Prober: element, Settle: -1, Workers: workers, Logger: slog.New(log), Rescan: time.Minute, bubble: true,
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				var end sync.WaitGroup
				end.Go(func() { err = s.Run(ctx) })
				time.Sleep(tt.lasts)
				now := s.Snapshot()
				if now.State != "paused" || now.Reason != tt.reason || int(now.Ambiguous) > tt.aside || now.Stored != 0 {
					t.Errorf("after %s: %+v", tt.lasts, now)
				}
				if log.count("uploads pause") != 1 {
					t.Errorf("the outage has %d lines", log.count("uploads pause"))
				}
				element.healed.Store(true)
				time.Sleep(2 * time.Hour) // the longest wait after three lost files, and the pause then
				now = s.Snapshot()
				if got, twice := element.stored(); got != files-int(now.Ambiguous) || twice != 0 || now.State != "running" {
					t.Errorf("healed: %d stored, %d twice, %+v", got, twice, now)
				}
				stop()
				end.Wait()
				if err := errors.Join(err, s.Close()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// lines counts log lines of level Info and above by their message.
type lines struct {
	mu   sync.Mutex
	seen map[string]int
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[string]int{}
	}
	l.seen[r.Message]++
	return nil
}

func (l *lines) count(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[message]
}
