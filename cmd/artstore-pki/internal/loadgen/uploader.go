// Package loadgen uploads generated files at a steady pace, for the demo and for the reference
// ingester. An upload that has begun is finished after the end of the context, so that a stop never
// looks like a failure.
package loadgen

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
	keptErrors    = 5                // of which FirstErrors tells
	uploadTimeout = 30 * time.Second // for one upload, all attempts together
)

// Uploader sends files that exist in memory only, and counts. It keeps no
// figure per file: it may run for weeks.
type Uploader struct {
	Client *ingestclient.Client

	Uploads, Bytes, Failures atomic.Int64 // Bytes are those of files that are stored

	mu     sync.Mutex // guards the fields below
	errors []error    // the first few
	last   error      // of the upload that ended last
}

// Upload sends one file, within half a minute, and counts it. It returns an error if another size
// was stored than was sent. The end of ctx does not interrupt it.
func (l *Uploader) Upload(ctx context.Context, name string, content []byte) (*ingestclient.File, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), uploadTimeout)
	defer cancel()
	file, err := l.Client.Upload(ctx, ingestclient.ReaderContent(name, bytes.NewReader(content), int64(len(content))), ingestclient.Meta{})
	if err == nil && file.Size != int64(len(content)) {
		err = fmt.Errorf("uploading %s: %d bytes stored, want %d", name, file.Size, len(content))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = err
	if err != nil {
		l.Failures.Add(1)
		if len(l.errors) < keptErrors {
			l.errors = append(l.errors, err)
		}
		return nil, err
	}
	l.Uploads.Add(1)
	l.Bytes.Add(int64(len(content)))
	return file, nil
}

// Health returns nil if the last upload succeeded, its error if it failed, and an error if there was
// none yet.
func (l *Uploader) Health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil && l.Uploads.Load() == 0 {
		return errors.New("nothing is uploaded yet")
	}
	return l.last
}

// FirstErrors returns the first few failures as one error, or nil.
func (l *Uploader) FirstErrors() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errors...)
}

// Every calls do at a steady pace until ctx ends, with 0, 1, 2 and so on. The first call comes after
// one pace. A call that takes longer delays the next one, and none is made up for.
func Every(ctx context.Context, pace time.Duration, do func(n int)) {
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
