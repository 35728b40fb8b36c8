package demo

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/loadgen"
	"github.com/artstore/artstore-pki/ingestclient"
)

// The load of the demo: small files at a steady pace from several workers, as an ingester has
// them, and now and then a large file, whose upload may begin before a rotation and end after it.
const (
	smallWorkers = 4
	smallEvery   = 250 * time.Millisecond // of each worker: 16 files a second together
	smallMin     = 512                    // bytes, as the next one
	smallMax     = 64 << 10
	largeEvery   = 5 * time.Second
	largeSize    = 8 << 20 // bytes
)

// loadGenerator uploads until its context ends, and keeps how long each upload took.
type loadGenerator struct {
	loadgen.Uploader
	content []byte // random, largeSize long; small files are windows of it

	tookMu sync.Mutex
	took   []time.Duration
}

// newLoadGenerator returns a generator with random content, which no layer below can compress or
// find again. The content is made once.
func newLoadGenerator(client *ingestclient.Client) *loadGenerator {
	content := make([]byte, largeSize)
	_, _ = rand.Read(content) // never fails (Go 1.24)
	return &loadGenerator{Uploader: loadgen.Uploader{Client: client}, content: content}
}

// Run uploads until ctx ends, and returns when the uploads in flight have ended.
func (l *loadGenerator) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for w := range smallWorkers {
		workers.Go(func() {
			loadgen.Every(ctx, smallEvery, func(n int) {
				size := smallMin + (n*7919+w*104729)%(smallMax-smallMin) // spread over the range, the same in every run
				l.time(ctx, fmt.Sprintf("small-%d-%05d.bin", w, n), l.content[n%4096:n%4096+size])
			})
		})
	}
	workers.Go(func() {
		loadgen.Every(ctx, largeEvery, func(n int) { l.time(ctx, fmt.Sprintf("large-%05d.bin", n), l.content) })
	})
	workers.Wait()
}

// time uploads one file and keeps how long it took. The time of a failed upload is not kept: it
// may be far shorter or longer than that of an upload, and would falsify the quantiles.
func (l *loadGenerator) time(ctx context.Context, name string, content []byte) {
	start := time.Now()
	if _, err := l.Upload(ctx, name, content); err != nil {
		return // counted, and kept for the report
	}
	l.tookMu.Lock()
	defer l.tookMu.Unlock()
	l.took = append(l.took, time.Since(start))
}

// quantiles returns the quantiles qs, each from 0 to 1, of the upload times so far: 0 for each if
// there was no upload.
func (l *loadGenerator) quantiles(qs ...float64) []time.Duration {
	l.tookMu.Lock()
	took := slices.Clone(l.took)
	l.tookMu.Unlock()
	slices.Sort(took)
	out := make([]time.Duration, len(qs))
	for i, q := range qs {
		if len(took) > 0 {
			out[i] = took[min(len(took)-1, int(q*float64(len(took))))]
		}
	}
	return out
}
