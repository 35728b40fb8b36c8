package spool_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
	"github.com/artstore/artstore-pki/ingestclient/spool/status"
)

// fixture is a spooled directory with a real Storage Element behind it.
type fixture struct {
	*testing.T
	dir    string
	stack  *ingesttest.Stack
	client *ingestclient.Client
	cfg    spool.Config

	mu     sync.Mutex
	events []spool.Event
}

func newFixture(t *testing.T, opt ingesttest.Options) *fixture {
	t.Helper()
	b := &fixture{T: t, dir: t.TempDir(), stack: ingesttest.Start(t, opt)}
	cfg := b.stack.Config()
	cfg.MaxAttempts = 1
	var err error
	b.client, err = ingestclient.New(cfg, b.stack.Identity)
	b.must(err)
	t.Cleanup(func() { _ = b.client.Close() }) // its error is always nil
	b.cfg = spool.Config{
		Dir: b.dir, Uploader: b.client, Settle: -1, Rescan: 20 * time.Millisecond, Once: true,
		Logger: slog.New(slog.DiscardHandler), Observer: b.observe,
	}
	if opt.Dialect != "go" {
		b.cfg.Finder, b.cfg.IDsKept = b.client, true
	}
	return b
}

func (b *fixture) observe(e spool.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

// kinds lists what happened, in order.
func (b *fixture) kinds() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]string, len(b.events))
	for i, e := range b.events {
		out[i] = e.Kind
	}
	return out
}

func (b *fixture) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *fixture) write(name, content string) string {
	b.Helper()
	path := filepath.Join(b.dir, name)
	b.must(os.MkdirAll(filepath.Dir(path), 0o700))
	b.must(os.WriteFile(path, []byte(content), 0o600))
	return path
}

// run is one life of the spool, from Open to Close.
func (b *fixture) run() status.Snapshot {
	b.Helper()
	s, err := spool.Open(b.cfg)
	b.must(err)
	defer func() { b.must(s.Close()) }()
	b.must(s.Run(b.Context()))
	return s.Snapshot()
}

// start runs a spool until stop.
func (b *fixture) start() (s *spool.Spool, stop func() error) {
	b.Helper()
	cfg := b.cfg
	cfg.Once = false
	s, err := spool.Open(cfg)
	b.must(err)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		if closed := s.Close(); err == nil {
			err = closed
		}
		return err
	})
	b.Cleanup(func() { _ = stop() })
	return s, stop
}

// until polls: what changes is behind a socket and a disk.
func (b *fixture) until(what string, ok func() bool) {
	b.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			b.Fatalf("never: %s; events %v", what, b.kinds())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (b *fixture) status() *status.Report {
	b.Helper()
	st, err := spool.ReadStatus(b.Context(), spool.Config{Dir: b.dir, StateDir: b.cfg.StateDir, Recursive: true})
	b.must(err)
	return st
}

// check compares the element and the directory with what is expected.
func (b *fixture) check(stored []string, waiting, claimed, failed, ambiguous int) {
	b.Helper()
	var names []string
	for _, f := range b.stack.Files() {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, stored) {
		b.Errorf("stored %q, want %q", names, stored)
	}
	st := b.status()
	if got, want := fmt.Sprint(len(st.Waiting), len(st.Claimed), len(st.Failed), len(st.Ambiguous)), fmt.Sprint(waiting, claimed, failed, ambiguous); got != want {
		b.Errorf("waiting, claimed, failed, ambiguous: %s, want %s\n%+v", got, want, st)
	}
}

// fakeUploader answers as the test says, and otherwise asks the real client: a real
// element cannot be made to give these answers on demand.
type fakeUploader struct {
	next spool.Uploader
	say  func(name string) error // nil: ask next
}

func (r fakeUploader) Upload(ctx context.Context, content ingestclient.Content, meta ingestclient.Meta) (*ingestclient.File, error) {
	if err := r.say(content.Name()); err != nil {
		return nil, &ingestclient.RequestError{Op: "uploading", Name: content.Name(), Attempt: 1, Err: err}
	}
	return r.next.Upload(ctx, content, meta)
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
