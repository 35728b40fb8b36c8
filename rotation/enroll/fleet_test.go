package enroll_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// fleetEnv is the number of services of a fleet; make soak takes 200, and with as many
// TestRealFleetRotatesItsRoot wants 50 000 requests. A few show the same faults.
const fleetEnv = "ARTSTORE_FLEET"

func fleetSize(t *testing.T) int {
	t.Helper()
	text := os.Getenv(fleetEnv)
	if text == "" {
		return 24
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// peers are many services of a real authority in one process.
type peers struct {
	t       *testing.T
	ca      *catest.CA
	sources []*enroll.Source
	ids     []*rotation.Identity
	begun   atomic.Bool    // before, services start within a second or two instead of half a minute
	url     string         // of the service that traffic asks
	done    []atomic.Int64 // requests of each client of traffic
}

// newPeers starts services that all have the profile svc.
func newPeers(t *testing.T, size int) *peers {
	t.Helper()
	return newPeersOf(t, size, func(int) string { return "svc" }, func(_ int, src *enroll.Source) rotation.Source { return src })
}

// newPeersOf starts services with profiles of their own. wrap may put something between the
// source of one and its identity.
func newPeersOf(t *testing.T, size int, name func(i int) string, wrap func(i int, src *enroll.Source) rotation.Source) *peers {
	t.Helper()
	allowed := map[string]policy.Profile{"svc": {Names: []string{"svc", "127.0.0.1"}, MaxLive: 100_000}}
	for i := range size {
		if service := name(i); service != "svc" {
			allowed[service] = policy.Profile{Names: []string{service, "svc", "127.0.0.1"}}
		}
	}
	f := &peers{t: t, ca: catest.Start(t, catest.Options{Profiles: allowed, Lifetime: time.Hour})}
	f.sources, f.ids = make([]*enroll.Source, size), make([]*rotation.Identity, size)
	var opened sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range size {
		src, err := enroll.New(enroll.Config{
			URL: f.ca.URL, InMemory: true, Token: once(f.ca.Token(t, name(i))), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		src.SetRandom(func() float64 {
			if f.begun.Load() {
				return rand.Float64()
			}
			return rand.Float64() / 16
		})
		f.sources[i] = src
		opened.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			id, err := rotation.Open(context.WithoutCancel(t.Context()), rotation.Config{Source: wrap(i, src), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Errorf("service %d: %v", i, err)
				return
			}
			f.ids[i] = id
		})
	}
	opened.Wait()
	t.Cleanup(func() {
		var closed sync.WaitGroup
		for _, id := range f.ids {
			if id != nil {
				closed.Go(func() { _ = id.Close() })
			}
		}
		closed.Wait()
	})
	if t.Failed() {
		t.FailNow()
	}
	f.await("all watch", func(i int) bool { return f.sources[i].Status().Watching })
	f.begun.Store(true)
	if st := f.ids[0].Status(); st.WatchMode != "watch+poll" || st.WatchError != "" {
		t.Errorf("the status of an identity says %q, %q", st.WatchMode, st.WatchError)
	}
	return f
}

// await waits until all services are so, and logs how long that took.
func (f *peers) await(what string, ok func(i int) bool) {
	f.t.Helper()
	const limit = 5 * time.Minute // a busy machine with the race detector takes more than a minute
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for next := 0; next < len(f.ids); {
		if ok(next) {
			next++
			continue
		}
		if time.Since(began) > limit {
			f.t.Fatalf("%s: %d of %d after %s; %+v", what, next, len(f.ids), limit, f.sources[next].Status())
		}
		<-tick.C
	}
	f.t.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond))
}

// traffic sends requests from some services to the first one until the test calls stop. Each
// that fails fails the test.
func (f *peers) traffic(clients int) (stop func()) {
	f.t.Helper()
	server, err := f.ids[0].Server(rotation.ServerOptions{Authorize: rotation.AllowNames("svc")})
	if err != nil {
		f.t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(f.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.t.Context()))
	served := make(chan error, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	go func() {
		served <- server.Serve(ctx, ln, handler)
	}()
	f.url = "https://" + ln.Addr().String()
	f.done = make([]atomic.Int64, clients)
	var sending sync.WaitGroup
	var over atomic.Bool
	for i, id := range f.ids[1 : clients+1] {
		tr, err := id.Transport(rotation.TransportOptions{})
		if err != nil {
			f.t.Fatal(err)
		}
		sending.Go(func() {
			client := &http.Client{Transport: tr}
			for !over.Load() {
				if err := fetch(ctx, client, f.url); err != nil {
					f.t.Errorf("a request between services: %v", err)
				}
				f.done[i].Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		over.Store(true)
		sending.Wait()
		cancel()
		<-served
		sent := int64(0)
		for i := range f.done {
			sent += f.done[i].Load()
		}
		f.t.Logf("%d requests", sent)
	})
	f.t.Cleanup(stop) // before the identities close, also when the test has failed
	return stop
}

// round waits until each client of traffic has sent two more requests. The first may still use
// the connection of before.
func (f *peers) round() {
	f.t.Helper()
	before := make([]int64, len(f.done))
	for i := range f.done {
		before[i] = f.done[i].Load()
	}
	f.await("two more requests each", func(int) bool {
		for i := range f.done {
			if f.done[i].Load() < before[i]+3 {
				return false
			}
		}
		return true
	})
}

func fetch(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok" {
		return fmt.Errorf("got %q: %w", body, err)
	}
	return nil
}

// TestRealFleetIsTold expects that the services of a real authority refuse a certificate within
// seconds of its revocation, trust a new root as soon, and report it, while requests between
// them go on. The limits are for a busy machine; the log has what was measured.
func TestRealFleetIsTold(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	f := newPeers(t, fleetSize(t))
	stop := f.traffic(10)
	victim, err := enroll.Issue(t.Context(), enroll.Config{URL: f.ca.URL, InMemory: true, Token: once(f.ca.Token(t, "svc"))})
	if err != nil {
		t.Fatal(err)
	}
	f.ca.Revoke(t, victim.Certificate.Leaf.SerialNumber.String()) // as a command beside the authority does
	f.await("all refuse a revoked certificate", func(i int) bool { return f.ids[i].Status().RevokedSerials == 1 })
	root := f.ca.AddRoot(t)
	f.await("all trust a new root", func(i int) bool { return f.ids[i].Status().Roots == 2 })
	f.await("all have reported the new root", func(i int) bool {
		if i > 0 {
			return true // the status is of all
		}
		status, err := f.ca.Authority.TrustStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		added := slices.IndexFunc(status.Roots, func(r stepapi.RootStatus) bool { return r.Fingerprint == root })
		return added >= 0 && len(status.Roots[added].Without) == 0
	})
	stop()
	f.ca.Check(t)
}

// TestRealFleetLeavesAStolenIntermediate expects that a fleet renews by an order away from
// an intermediate whose key was stolen, that it refuses what that signs after its revocation, and
// that no request between services fails. What this costs the authority is measured with the command
// (TestServeLeavesAStolenIntermediate).
func TestRealFleetLeavesAStolenIntermediate(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	f := newPeers(t, fleetSize(t))
	stop := f.traffic(10)
	stolen, err := x509.ParseCertificate(f.ids[0].Current().Certificate().Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.ca.RotateIntermediate(t)
	record, err := ca.StateDir(f.ca.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = record.Close() }()
	if _, err := record.ForceRenewal(t.Context(), ca.RenewalOrder{Issuer: certs.Fingerprint(stolen), Within: "5s"}); err != nil {
		t.Fatal(err)
	}
	f.await("all have renewed", func(i int) bool { return !bytes.Equal(f.ids[i].Current().Certificate().Certificate[1], stolen.Raw) })
	f.round()
	f.ca.RevokeIntermediate(t, stolen)
	f.await("all refuse what the stolen key signs", func(i int) bool { return f.ids[i].Status().RevokedSerials == 1 })
	t.Logf("%s from the first step to the last", time.Since(began).Round(time.Millisecond))
	leaf, key := forge(t, f.ca, stolen)
	forged := rotation.Static(rotation.Material{
		Certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw, stolen.Raw}, PrivateKey: key, Leaf: leaf}, Roots: f.ca.Roots(),
	})
	id, err := rotation.Open(t.Context(), rotation.Config{Source: forged, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = id.Close() }()
	tr, err := id.Transport(rotation.TransportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fetch(t.Context(), &http.Client{Transport: tr}, f.url); err == nil {
		t.Error("a server has answered a forged certificate")
	}
	stop()
	f.ca.Check(t)
}
