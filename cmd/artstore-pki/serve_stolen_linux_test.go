package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// fleetEnv is how many services TestServeLeavesAStolenIntermediate has. `make soak` sets it to
// the number of the bar, and then the CPU of serve is judged.
const fleetEnv = "ARTSTORE_FLEET"

// fewServices is that number otherwise: the commands and one renewal each cost seconds.
const fewServices = 20

// TestServeLeavesAStolenIntermediate takes a fleet away from an intermediate whose key was
// stolen by the commands of an operator, and measures the CPU that a real serve needs for
// that: with 200 services a core at most. Whether requests between services fail meanwhile is
// judged in package rotation/enroll.
func TestServeLeavesAStolenIntermediate(t *testing.T) {
	long(t, "it enrols a fleet")
	t.Parallel()
	n, judged := fewServices, false
	if text := os.Getenv(fleetEnv); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
		judged = true
	}
	f := serveWatched(t, "90s") // services then wait for changes within nine seconds of their start
	ids := f.identities(t, n)
	stolen, err := x509.ParseCertificate(ids[0].Current().Certificate().Certificate[1])
	must(t, err)
	cpu, began := f.metric(t, "process_cpu_seconds_total"), time.Now()
	f.w.ok(t, "intermediate", "rotate", "--dir", "ca")
	f.w.ok(t, "renewal", "force", "--dir", "ca", "--issuer", certs.Fingerprint(stolen), "--within", "5s")
	awaitAll(t, ids, "renewed", func(id *rotation.Identity) bool {
		return !bytes.Equal(id.Current().Certificate().Certificate[1], stolen.Raw)
	})
	f.w.ok(t, "intermediate", "revoke", certs.Fingerprint(stolen), "--dir", "ca", "--accept", "ingester")
	awaitAll(t, ids, "refused what it signs", func(id *rotation.Identity) bool { return id.Status().RevokedSerials == 1 })
	wall := time.Since(began).Seconds()
	cpu = f.metric(t, "process_cpu_seconds_total") - cpu
	t.Logf("%d services have left after %.1f s, in which serve took %.2f s of CPU: %.2f of a core", n, wall, cpu, cpu/wall)
	if judged && cpu > wall {
		t.Errorf("%.2f of a core, want 1 at most", cpu/wall)
	}
}

// identities opens n services that enrol at serve, and waits until all wait for changes.
func (f *watchFleet) identities(t *testing.T, n int) []*rotation.Identity {
	t.Helper()
	ids, sources := make([]*rotation.Identity, n), make([]*enroll.Source, n)
	quiet := slog.New(slog.DiscardHandler)
	var opened sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range n {
		token, err := ca.StateDir(filepath.Join(f.w.dir, "ca")).NewToken(t.Context(), ca.TokenOptions{Service: "ingester", Names: []string{"ingester"}})
		must(t, err)
		once := func(context.Context) (secret.String, error) { return token, nil }
		sources[i], err = enroll.New(enroll.Config{URL: "https://" + f.addr, InMemory: true, Token: once, Logger: quiet})
		must(t, err)
		opened.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var err error
			if ids[i], err = rotation.Open(t.Context(), rotation.Config{Source: sources[i], Logger: quiet}); err != nil {
				t.Errorf("service %d: %v", i, err)
			}
		})
	}
	opened.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		var closed sync.WaitGroup
		for _, id := range ids {
			closed.Go(func() { _ = id.Close() })
		}
		closed.Wait()
	})
	f.await(t, n)
	return ids
}

// awaitAll waits until all services are so.
func awaitAll(t *testing.T, ids []*rotation.Identity, what string, ok func(*rotation.Identity) bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for i, id := range ids {
		for !ok(id) {
			if time.Now().After(deadline) {
				t.Fatalf("service %d of %d has not %s: %+v", i, len(ids), what, id.Status())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}
