package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

const (
	keptErrors    = 5
	uploadTimeout = 30 * time.Second
)

// uploader sends files that exist in memory only, and counts. It keeps no
// figure per file: it may run for weeks.
type uploader struct {
	client *ingestclient.Client

	uploads, bytes, failures atomic.Int64

	mu     sync.Mutex // guards what follows
	errors []error    // the first few
	last   error      // of the upload that ended last
}

// upload sends one file. The end of ctx does not cut it: what has started is
// finished, or a stop would look like a failure.
func (l *uploader) upload(ctx context.Context, name string, content []byte) (*ingestclient.File, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), uploadTimeout)
	defer cancel()
	file, err := l.client.Upload(ctx, ingestclient.ReaderContent(name, bytes.NewReader(content), int64(len(content))), ingestclient.Meta{})
	if err == nil && file.Size != int64(len(content)) {
		err = fmt.Errorf("uploading %s: %d bytes stored, want %d", name, file.Size, len(content))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = err
	if err != nil {
		l.failures.Add(1)
		if len(l.errors) < keptErrors {
			l.errors = append(l.errors, err)
		}
		return nil, err
	}
	l.uploads.Add(1)
	l.bytes.Add(int64(len(content)))
	return file, nil
}

// health is nil if there were uploads and the last one succeeded.
func (l *uploader) health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil && l.uploads.Load() == 0 {
		return errors.New("nothing is uploaded yet")
	}
	return l.last
}

// firstErrors joins the first few failures.
func (l *uploader) firstErrors() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errors...)
}

// every calls do at a steady pace until ctx ends.
func every(ctx context.Context, pace time.Duration, do func(n int)) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do(n)
		}
	}
}
