package ca_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// BenchmarkReplicas issues through three authorities on one PostgreSQL with four
// callers each, without the network. Compared with a build without the log it shows
// what the log costs.
//
//	go test ./ca -run '^$' -bench Replicas -benchtime 4000x
func BenchmarkReplicas(b *testing.B) {
	const replicas, callers = 3, 4
	dir := filepath.Join(b.TempDir(), "ca")
	if _, err := setup.Init(b.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: profiles(), Database: postgres.Database(b)}); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	var keeping sync.WaitGroup
	handlers := make([]http.Handler, replicas)
	for i := range handlers {
		a, err := ca.Open(ctx, ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		handlers[i] = a.Handler()
		keeping.Go(func() { _ = a.KeepLog(ctx) })
		defer func() { _ = a.Close() }()
	}
	defer keeping.Wait()
	defer stop()
	bodies := make([][]byte, b.N)
	key := newKey(b)
	for i := range bodies {
		token, err := ca.StateDir(dir).NewToken(b.Context(), ca.TokenOptions{Service: "storage"})
		if err != nil {
			b.Fatal(err)
		}
		req := stepapi.SignRequest{CSR: csr(b, key, "storage", "storage", "localhost", "127.0.0.1"), OTT: token.Expose()}
		if bodies[i], err = json.Marshal(req); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Int64
	var group sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for i := range replicas * callers {
		group.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				r := httptest.NewRequest(http.MethodPost, "/sign", bytes.NewReader(bodies[n-1]))
				w := httptest.NewRecorder()
				if handlers[i%replicas].ServeHTTP(w, r); w.Code != http.StatusCreated {
					b.Errorf("%d %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "certificates/s")
}
