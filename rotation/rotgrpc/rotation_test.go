package rotgrpc_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/rotgrpc"
)

const rotations = 20

// TestRotationsUnderLoad rotates the client 20 times, and the server too, while calls
// run and streams stay open. It counts failed calls, old certificates and connections
// that are left.
func TestRotationsUnderLoad(t *testing.T) {
	w := newWorld(t, worldOptions{})
	c := w.client(t)
	ctx := limit(t)
	load := startLoad(ctx, c, current(w.clientID))
	streams := []duplex{openStream(ctx, t, c)}
	first := current(w.clientID)
	for range rotations {
		before := load.calls.Load()
		next := w.ca.Leaf(t, "ingester")
		load.publish(func() string { w.clientSrc.Push(t, next); return current(w.clientID) })
		w.serverSrc.Push(t, w.ca.Leaf(t, "storage"))
		streams = append(streams, openStream(ctx, t, c))
		waitFor(t, "calls after a rotation", func() bool { return load.calls.Load() > before+20 })
		if got, err := ping(streams[0]); err != nil || got != first {
			t.Fatalf("the first stream speaks for %q, error %v; want %q", got, err, first)
		}
	}
	last := current(w.clientID)
	for i, s := range streams {
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("stream %d ends with %v", i, err)
		}
	}
	load.stop()
	if got, err := whoami(ctx, c); err != nil || got != last {
		t.Errorf("a call at the end speaks for %q, error %v; want %q", got, err, last)
	}
	waitFor(t, "old connections closed", func() bool {
		_, atClient := connections(w.clientID)
		atServer, _ := connections(w.serverID)
		return rotgrpc.Lanes(c) == 1 && atClient == 0 && atServer == 1 && w.clientID.Status().Draining == 0
	})
	t.Logf("%d calls over %d rotations: failed %d, stale %d", load.calls.Load(), rotations, load.failed.Load(), load.stale.Load())
	if f, s := load.failed.Load(), load.stale.Load(); f != 0 || s != 0 {
		t.Errorf("failed %d (%v), stale %d", f, load.why.Load(), s)
	}
}

// load makes unary calls from several goroutines until it is stopped.
type load struct {
	calls, failed, stale atomic.Int64
	why                  atomic.Value // an error
	workers              sync.WaitGroup
	done                 chan struct{}

	mu     sync.RWMutex
	number map[string]int // of a serial
	floor  atomic.Int64   // the least number that a call may speak for that starts now
}

func startLoad(ctx context.Context, c *rotgrpc.Client, serial string) *load {
	l := &load{done: make(chan struct{}), number: map[string]int{serial: 0}}
	for range 4 {
		l.workers.Go(func() {
			for {
				select {
				case <-l.done:
					return
				default:
					l.call(ctx, c)
				}
			}
		})
	}
	return l
}

func (l *load) call(ctx context.Context, c *rotgrpc.Client) {
	floor := l.floor.Load()
	serial, err := whoami(ctx, c)
	l.calls.Add(1)
	if err != nil {
		l.failed.Add(1)
		l.why.Store(err)
		return
	}
	l.mu.RLock() // waits for the number of what is being published
	n, known := l.number[serial]
	l.mu.RUnlock()
	if !known || int64(n) < floor {
		l.stale.Add(1)
	}
}

// publish runs push, which makes a new serial current.
func (l *load) publish(push func() string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.number)
	l.number[push()] = n
	l.floor.Store(int64(n))
}

func (l *load) stop() { close(l.done); l.workers.Wait() }

// TestIdleClientLetsGo expects that the old connection closes even if there are no
// calls.
func TestIdleClientLetsGo(t *testing.T) {
	w := newWorld(t, worldOptions{})
	c := w.client(t)
	if _, err := whoami(limit(t), c); err != nil {
		t.Fatal(err)
	}
	w.clientSrc.Push(t, w.ca.Leaf(t, "ingester"))
	waitFor(t, "the connection closed", func() bool {
		all, _ := connections(w.clientID)
		return all == 0 && rotgrpc.Lanes(c) == 1
	})
}

// TestEndlessStreamIsCut expects that an open stream is cut at the deadline, and that
// one that is not received from keeps no connection open.
func TestEndlessStreamIsCut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	const drain = 5 * time.Second
	w := newWorld(t, worldOptions{drain: drain})
	c := w.client(t)
	ctx := limit(t)
	s, abandoned := openStream(ctx, t, c), openStream(ctx, t, c)
	w.clientSrc.Push(t, w.ca.Leaf(t, "ingester"))
	began := time.Now()
	if _, err := ping(s); err != nil {
		t.Errorf("cut before the deadline: %v", err)
	}
	_, err := s.Recv()
	if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
		t.Errorf("the stream ends with %v", err)
	}
	if took := time.Since(began); took < drain/2 || took > time.Minute {
		t.Errorf("cut after %s, want about %s", took, drain)
	}
	waitFor(t, "the connection closed", func() bool { _, old := connections(w.clientID); return rotgrpc.Lanes(c) == 1 && old == 0 })
	if got, err := whoami(ctx, c); err != nil || got != current(w.clientID) {
		t.Errorf("a call after the cut speaks for %q, error %v", got, err)
	}
	runtime.KeepAlive(abandoned)
}

// TestRevokedPeerIsCut expects that an open stream of a revoked peer ends at once, and
// that no further call is served.
func TestRevokedPeerIsCut(t *testing.T) {
	w := newWorld(t, worldOptions{})
	c := w.client(t)
	ctx := limit(t)
	s := openStream(ctx, t, c)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{
			SerialNumber: w.clientID.Current().Leaf().SerialNumber, RevocationTime: time.Now(),
		}},
	}, w.ca.Root, w.ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseRevocationList(list)
	if err != nil {
		t.Fatal(err)
	}
	m := w.ca.Leaf(t, "storage")
	m.Revoked = []*x509.RevocationList{parsed}
	w.serverSrc.Push(t, m)
	_, err = s.Recv()
	wantStatus(t, "the open stream", err, codes.Unavailable, "")
	_, err = whoami(ctx, c)
	wantStatus(t, "a call", err, codes.Unavailable, "")
	w.clientSrc.Push(t, w.ca.Leaf(t, "ingester")) // with another serial
	if _, err := whoami(ctx, c); err != nil {
		t.Errorf("a call with a new certificate: %v", err)
	}
}

func TestDeniedPeerIsRefused(t *testing.T) {
	w := newWorld(t, worldOptions{authorize: rotation.AllowNames("query")})
	_, err := whoami(limit(t), w.client(t))
	wantStatus(t, "a denied peer", err, codes.Unavailable, "")
	if all, _ := connections(w.serverID); all != 0 {
		t.Errorf("the server looks after %d connections", all)
	}
}

// TestServerNameIsChecked expects that the name is that of the target or of the
// authority, and never the address.
func TestServerNameIsChecked(t *testing.T) {
	w := newWorld(t, worldOptions{})
	_, port, err := net.SplitHostPort(w.addr)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		client *rotgrpc.Client
		refuse string
	}{
		"address":         {newClient(t, w.clientID, "passthrough:///127.0.0.1:"+port), ""},
		"name":            {newClient(t, w.clientID, "dns:///localhost:"+port), ""},
		"authority":       {w.client(t, withAuthority("storage")), ""},
		"authority, port": {w.client(t, withAuthority("storage:443")), ""},
		"other authority": {w.client(t, withAuthority("query")), "not query"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := whoami(limit(t), c.client)
			if c.refuse == "" && err != nil {
				t.Fatal(err)
			}
			if c.refuse != "" && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.refuse)) {
				t.Errorf("%v; want one with %q", err, c.refuse)
			}
		})
	}
	_, err = testpb.NewTestServiceClient(w.client(t)).UnaryCall(limit(t), &testpb.SimpleRequest{}, callAuthority("query"))
	if err == nil {
		t.Error("a call named an authority that the certificate does not have")
	}
}
