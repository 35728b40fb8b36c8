package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// The load of the demo: small files at a steady pace from several workers, as
// an ingester sees them, and a large one now and then whose upload spans rotations' edges.
const (
	smallWorkers  = 4
	smallEvery    = 250 * time.Millisecond // per worker: 16 files/s together
	smallMin      = 512                    // bytes
	smallMax      = 64 << 10
	largeEvery    = 5 * time.Second
	largeSize     = 8 << 20
	keptErrors    = 5
	uploadTimeout = 30 * time.Second
)

// load uploads until its context ends, and counts.
type load struct {
	client  *ingestclient.Client
	content []byte // random, largeSize long; small files are windows of it

	uploads, bytes, failures atomic.Int64

	mu     sync.Mutex // guards what follows
	took   []time.Duration
	errors []error // the first few
}

func newLoad(client *ingestclient.Client) *load {
	content := make([]byte, largeSize)
	_, _ = rand.Read(content) // never fails (Go 1.24)
	return &load{client: client, content: content}
}

// Run uploads until ctx ends; what has started by then is finished.
func (l *load) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for w := range smallWorkers {
		workers.Go(func() {
			l.every(ctx, smallEvery, func(n int) {
				size := smallMin + (n*7919+w*104729)%(smallMax-smallMin) // spread over the range, the same in every run
				l.upload(ctx, fmt.Sprintf("small-%d-%05d.bin", w, n), l.content[n%4096:n%4096+size])
			})
		})
	}
	workers.Go(func() {
		l.every(ctx, largeEvery, func(n int) { l.upload(ctx, fmt.Sprintf("large-%05d.bin", n), l.content) })
	})
	workers.Wait()
}

func (l *load) every(ctx context.Context, pace time.Duration, do func(n int)) {
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

// upload sends one file. The end of the demo does not cut it: WithoutCancel.
func (l *load) upload(ctx context.Context, name string, content []byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), uploadTimeout)
	defer cancel()
	start := time.Now()
	receipt, err := l.client.Upload(ctx, ingestclient.BytesSource(name, content), ingestclient.Meta{})
	took := time.Since(start)
	if err == nil && receipt.Size != int64(len(content)) {
		err = fmt.Errorf("uploading %s: %d bytes stored, want %d", name, receipt.Size, len(content))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures.Add(1)
		if len(l.errors) < keptErrors {
			l.errors = append(l.errors, err)
		}
		return
	}
	l.uploads.Add(1)
	l.bytes.Add(int64(len(content)))
	l.took = append(l.took, took)
}

// quantiles returns the given quantiles of the upload times.
func (l *load) quantiles(qs ...float64) []time.Duration {
	l.mu.Lock()
	took := slices.Clone(l.took)
	l.mu.Unlock()
	slices.Sort(took)
	out := make([]time.Duration, len(qs))
	for i, q := range qs {
		if len(took) > 0 {
			out[i] = took[min(len(took)-1, int(q*float64(len(took))))]
		}
	}
	return out
}

// firstErrors joins the first few failures.
func (l *load) firstErrors() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errors...)
}
