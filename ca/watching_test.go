package ca_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// watchAnswer is the answer of one GET /watch.
type watchAnswer struct {
	stepapi.WatchResponse
	status int
	header http.Header
	took   time.Duration
}

// watchWith sends a request and returns where its answer comes.
func watchWith(t testing.TB, cl *client, query string) <-chan watchAnswer {
	t.Helper()
	out := make(chan watchAnswer, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cl.url+"/1.0/watch?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		began := time.Now()
		var got watchAnswer
		resp, err := cl.http.Do(req)
		if err == nil {
			defer func() { _ = resp.Body.Close() }()
			got.status, got.header = resp.StatusCode, resp.Header
			err = json.NewDecoder(resp.Body).Decode(&got.WatchResponse)
		}
		if err != nil && req.Context().Err() == nil { // a request that the end of the test cuts is no fault
			t.Errorf("watch: %v", err)
		}
		got.took = time.Since(began)
		out <- got
	}()
	return out
}

// having is the query of a service that has all that there is.
func having(w stepapi.WatchResponse) string {
	return fmt.Sprintf("trust=%s&lists=%s", w.Trust, w.Lists)
}

// now asks what there is, without a wait. An authority that has just begun knows nothing yet,
// and answers 503.
func now(t testing.TB, cl *client) stepapi.WatchResponse {
	t.Helper()
	got := <-watchWith(t, cl, "wait=0")
	for deadline := time.Now().Add(time.Minute); got.status == http.StatusServiceUnavailable && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
		got = <-watchWith(t, cl, "wait=0")
	}
	if got.status != http.StatusOK {
		t.Fatalf("watch: %d", got.status)
	}
	return got.WatchResponse
}

// awaitWatchers waits until so many requests wait.
func awaitWatchers(t testing.TB, c *catest.CA, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); c.Authority.Watchers() != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests wait, want %d", c.Authority.Watchers(), n)
		}
	}
}

func stillWaits(t testing.TB, ch <-chan watchAnswer, what string) {
	t.Helper()
	select {
	case got := <-ch:
		t.Errorf("%s: answered: %+v", what, got)
	default:
	}
}

// TestWatchers holds requests, and expects that each change answers them with the new
// values: one by this process at once, one by another process within seconds.
func TestWatchers(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, enrol(t, c, "storage", "storage"))
	first := now(t, cl)
	_, _, tag := revokedLists(t, cl, "")
	digest := stepapi.TrustDigest(c.Roots())
	if first.Trust != digest || `"`+first.Lists+`"` != tag || first.Renewal != nil {
		t.Fatalf("%+v; the bundle is %s, the lists are %s", first, digest, tag)
	}
	waiting := watchWith(t, cl, having(first))
	awaitWatchers(t, c, 1)
	stillWaits(t, waiting, "nothing has changed")

	mine := enrol(t, c, "ingester", "ingester")
	if status, body := newClient(t, c, mine).do("POST", "/revoke", stepapi.RevokeRequest{Serial: mine.Leaf.SerialNumber.String(), Passive: true}); status != http.StatusOK {
		t.Fatalf("revoking: %d %s", status, body)
	}
	second := <-waiting
	if second.Trust != digest || second.Lists == first.Lists || second.took > time.Minute {
		t.Errorf("after a revocation: %+v", second)
	}
	waiting = watchWith(t, cl, having(second.WatchResponse))
	awaitWatchers(t, c, 1)
	c.Revoke(t, enrol(t, c, "ingester", "ingester").Leaf.SerialNumber.String()) // as a command does
	third := <-waiting
	if third.Lists == second.Lists {
		t.Errorf("after a revocation by another process: %+v", third)
	}
	waiting = watchWith(t, cl, having(third.WatchResponse))
	awaitWatchers(t, c, 1)
	c.AddRoot(t)
	if fourth := <-waiting; fourth.Trust == digest || fourth.Trust != stepapi.TrustDigest(c.Roots()) {
		t.Errorf("after a new root: %+v", fourth)
	}
	c.Check(t)
}

// TestWatchReportsTrust expects that the bundle in the query is recorded as in effect.
func TestWatchReportsTrust(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, enrol(t, c, "storage", "storage"))
	without := func() int {
		t.Helper()
		status, err := c.Authority.TrustStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(status.Roots[0].Without)
	}
	if n := without(); n != 1 {
		t.Fatalf("%d services have not reported", n)
	}
	<-watchWith(t, cl, "wait=0&trust="+now(t, cl).Trust)
	if without() != 0 {
		t.Error("the report was not recorded")
	}
	<-watchWith(t, cl, "wait=0&trust="+strings.Repeat("0", 64))
	if without() != 1 {
		t.Error("another bundle counts as this one")
	}
}

// TestWatchIsForPeers expects that nobody can wait without a valid certificate of ours, or
// with one whose lineage was revoked.
func TestWatchIsForPeers(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cert := enrol(t, c, "storage", "storage")
	if got := <-watchWith(t, newClient(t, c, nil), ""); got.status != http.StatusUnauthorized {
		t.Errorf("without a certificate: %d", got.status)
	}
	cl := newClient(t, c, cert)
	for _, query := range []string{"trust=x", "wait=-1", "renewal=x"} {
		if got := <-watchWith(t, cl, query); got.status != http.StatusBadRequest {
			t.Errorf("%s: %d", query, got.status)
		}
	}
	c.Revoke(t, cert.Leaf.SerialNumber.String())
	if got := <-watchWith(t, cl, ""); got.status != http.StatusUnauthorized {
		t.Errorf("with a revoked certificate: %d", got.status)
	}
	if n := c.Authority.Watchers(); n != 0 {
		t.Errorf("%d requests wait", n)
	}
}

// TestWatchIsBounded expects that a third request of a lineage answers the first, that
// requests beyond limits.watchers are refused with a time to come back, and that held
// requests leave the connections of others alone.
func TestWatchIsBounded(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(b []byte) []byte {
		return append(b, "limits: {watchers: 3, per_address: {per_second: 0}}\n"...)
	}})
	cert := enrol(t, c, "storage", "storage")
	have := having(now(t, newClient(t, c, cert)))
	var held []<-chan watchAnswer
	wait := func(cert *tls.Certificate, n int) {
		t.Helper()
		held = append(held, watchWith(t, newClient(t, c, cert), have))
		awaitWatchers(t, c, n)
	}
	wait(cert, 1)
	wait(cert, 2)
	third := watchWith(t, newClient(t, c, cert), have)
	if got := <-held[0]; got.status != http.StatusOK || got.header.Get("Retry-After") == "" || having(got.WatchResponse) != have {
		t.Errorf("the first of three requests of a lineage: %+v", got)
	}
	wait(enrol(t, c, "ingester", "ingester"), 3)
	if got := <-watchWith(t, newClient(t, c, enrol(t, c, "ingester", "ingester")), have); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("beyond the limit: %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	stillWaits(t, third, "the third of a lineage")
	stillWaits(t, held[1], "the second of a lineage")
}

// TestWatchIsHeldOverHTTP11 expects that a request that would cost more than its connection is
// not held: one over HTTP/2, which is told why, and one with a body.
func TestWatchIsHeldOverHTTP11(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, enrol(t, c, "storage", "storage"))
	have := having(now(t, cl))
	if status, body := cl.do("GET", "/watch?"+have, "x"); status != http.StatusBadRequest || !strings.Contains(string(body), "no body") {
		t.Errorf("with a body: %d %s", status, body)
	}
	newer := &http.Transport{TLSClientConfig: cl.http.Transport.(*http.Transport).TLSClientConfig.Clone(), ForceAttemptHTTP2: true}
	newer.TLSClientConfig.NextProtos = nil // those of HTTP/1.1
	t.Cleanup(newer.CloseIdleConnections)
	cl.http.Transport = newer
	for _, query := range []string{have, "", "wait=1"} {
		if status, body := cl.do("GET", "/watch?"+query, nil); status != http.StatusHTTPVersionNotSupported || !strings.Contains(string(body), "http/1.1") {
			t.Errorf("%q over HTTP/2: %d %s", query, status, body)
		}
	}
	if got := now(t, cl); having(got) != have {
		t.Errorf("over HTTP/2 without a wait: %+v", got)
	}
	if n := c.Authority.Watchers(); n != 0 {
		t.Errorf("%d requests wait", n)
	}
}

// TestWatchClientLeaves expects that a client that has left does not count for long.
func TestWatchClientLeaves(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, enrol(t, c, "storage", "storage"))
	have := having(now(t, cl))
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, cl.url+"/1.0/watch?"+have, nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		resp, err := cl.http.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		left <- err
	}()
	awaitWatchers(t, c, 1)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("answered: %v", err)
	}
	awaitWatchers(t, c, 0)
}

// TestWatchEndsWithTheServer expects that the end of the authority answers all who wait.
func TestWatchEndsWithTheServer(t *testing.T) {
	t.Parallel()
	var waiting <-chan watchAnswer
	t.Run("serving", func(t *testing.T) {
		c := catest.Start(t, catest.Options{Profiles: profiles()})
		cl := newClient(t, c, enrol(t, c, "storage", "storage"))
		have := having(now(t, cl))
		out := make(chan watchAnswer, 1)
		waiting = out
		go func() {
			status, _ := cl.do("GET", "/watch?"+have, nil)
			out <- watchAnswer{status: status}
		}()
		awaitWatchers(t, c, 1)
	})
	if got := <-waiting; got.status != http.StatusServiceUnavailable {
		t.Errorf("at the end of the authority: %d", got.status)
	}
}

// TestWatchHearsOfTrust expects that a step by one replica is told to another at once: this one
// does not look for steps each second (KeepLog).
func TestWatchHearsOfTrust(t *testing.T) {
	t.Parallel()
	three := replicas(t, catest.Options{})
	other, err := ca.Open(t.Context(), ca.Options{Dir: three[1].Dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- other.KeepWatchers(ctx) }()
	heard := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it has not heard of a root that is %s", what)
			}
		}
	}
	root := three[0].AddRoot(t)
	heard("staged", func() bool { return len(other.Roots()) == 2 }) // maybe as it began to listen
	three[0].ActivateRoot(t, root)
	heard("active", func() bool { return certs.Fingerprint(other.Roots()[0]) == root })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWatchReplicas expects that a change at one replica answers who waits at another.
func TestWatchReplicas(t *testing.T) {
	t.Parallel()
	three := replicas(t, catest.Options{})
	cl := newClient(t, three[1], enrol(t, three[0], "storage", "storage"))
	for i := range 3 {
		have := now(t, cl)
		waiting := watchWith(t, cl, having(have))
		awaitWatchers(t, three[1], 1)
		three[i].Revoke(t, enrol(t, three[i], "ingester", "ingester").Leaf.SerialNumber.String())
		if got := <-waiting; got.Lists == have.Lists {
			t.Errorf("a revocation at replica %d: %+v", i, got)
		}
	}
}

// TestDeliveryOfOthers: a service may say of certificates of its own lineage that they are served,
// and of no other. Whatever it says, its request is answered.
func TestDeliveryOfOthers(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	mine, other := enrol(t, c, "storage", "storage"), enrol(t, c, "ingester", "ingester")
	cl := newClient(t, c, mine)
	now(t, cl)
	rec, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rec.Close() }() // read only
	for _, step := range []struct {
		said     string
		recorded bool
	}{
		{"served=" + other.Leaf.SerialNumber.String() + "&served_at=web:443&servers=1&served_for=0", false},
		{"served=" + mine.Leaf.SerialNumber.String() + "&served_at=%1b[2J&servers=1&served_for=0", false},
		{"served=" + mine.Leaf.SerialNumber.String() + "&served_at=web:443&servers=0&served_for=0", false},
		{"served=" + mine.Leaf.SerialNumber.String() + "&served_at=web:443&servers=3&served_for=2000000000", true},
	} {
		if got := <-watchWith(t, cl, "wait=0&"+step.said); got.status != http.StatusOK {
			t.Errorf("%s: status %d", step.said, got.status)
		}
		for _, serial := range []string{mine.Leaf.SerialNumber.String(), other.Leaf.SerialNumber.String()} {
			cert, err := rec.Show(t.Context(), serial)
			if want := step.recorded && serial == mine.Leaf.SerialNumber.String(); err != nil || (cert.Served != nil) != want {
				t.Errorf("%s: %s has %+v, %v", step.said, serial, cert.Served, err)
			}
		}
	}
	cert, err := rec.Show(t.Context(), mine.Leaf.SerialNumber.String())
	if err != nil || cert.Served.Address != "web:443" || cert.Served.Servers != 3 || cert.Served.Since.Before(cert.NotBefore) {
		t.Errorf("%+v, %v", cert.Served, err)
	}
	c.Check(t)
}
