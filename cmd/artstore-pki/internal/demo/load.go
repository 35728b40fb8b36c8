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

// The load of the demo: small files at a steady pace from several workers, as
// an ingester sees them, and a large one now and then whose upload spans rotations' edges.
const (
	smallWorkers = 4
	smallEvery   = 250 * time.Millisecond // per worker: 16 files/s together
	smallMin     = 512                    // bytes
	smallMax     = 64 << 10
	largeEvery   = 5 * time.Second
	largeSize    = 8 << 20
)

// loadGenerator uploads until its context ends, and keeps how long each upload took.
type loadGenerator struct {
	loadgen.Uploader
	content []byte // random, largeSize long; small files are windows of it

	tookMu sync.Mutex
	took   []time.Duration
}

// newLoadGenerator makes the content once: random bytes cannot be compressed or
// found twice by anything on the way.
func newLoadGenerator(client *ingestclient.Client) *loadGenerator {
	content := make([]byte, largeSize)
	_, _ = rand.Read(content) // never fails (Go 1.24)
	return &loadGenerator{Uploader: loadgen.Uploader{Client: client}, content: content}
}

// Run uploads until ctx ends; what has started by then is finished.
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

// time uploads one file and keeps how long it took. A failed upload has no time: it
// would make the quantiles look better or worse than uploads are.
func (l *loadGenerator) time(ctx context.Context, name string, content []byte) {
	start := time.Now()
	if _, err := l.Upload(ctx, name, content); err != nil {
		return // counted, and kept for the report
	}
	l.tookMu.Lock()
	defer l.tookMu.Unlock()
	l.took = append(l.took, time.Since(start))
}

// quantiles returns the given quantiles of the upload times.
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
