package rotation_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
)

// bubble serves h by Serve in a synctest bubble, over a network in memory, until
// the end of the test.
func bubble(t *testing.T, opts rotation.ServerOptions, h http.HandlerFunc) (*testCA, *pkitest.Network, *logs) {
	t.Helper()
	ca, network, log := newCA(t, "ca"), pkitest.NewNetwork(), &logs{}
	id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(ca.leaf(t, "svc", nil)), Logger: log.logger()})
	must(t, err)
	opts.Authorize = rotation.AllowNames("client")
	s, err := id.Server(opts)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, network, h) }()
	t.Cleanup(func() { cancel(); <-done; _ = id.Close() })
	return ca, network, log
}

func dialBubble(t *testing.T, network *pkitest.Network) net.Conn {
	t.Helper()
	c, err := network.Dial(t.Context(), "tcp", "svc")
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestServeLimitsConnections expects that a connection above MaxConns waits until
// another one ends, and that one above MaxConnsPerAddress is closed at once.
func TestServeLimitsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, network, log := bubble(t, rotation.ServerOptions{MaxConns: 3, MaxConnsPerAddress: 3}, whoami)
		for range 3 { // they say nothing, and so end with the time for a handshake
			dialBubble(t, network)
		}
		time.Sleep(5 * time.Second) // half of that time
		tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{ServerName: "svc", DialContext: network.Dial})
		defer func() { _ = tr.Close() }()
		began := time.Now()
		mustGet(t, tr, "svc")
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the fourth connection was answered after %s, while three were open", took)
		}
		if strings.Contains(log.String(), "as many connections as it may") {
			t.Error("a connection that waits was refused")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ca, network, log := bubble(t, rotation.ServerOptions{MaxConns: 8}, whoami) // two of an address
		silent := []net.Conn{dialBubble(t, network), dialBubble(t, network)}
		for range 10 {
			if _, err := dialBubble(t, network).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("a third connection of an address: %v", err)
			}
		}
		if n := strings.Count(log.String(), "as many connections as it may"); n != 1 {
			t.Errorf("%d lines of the log about ten connections", n)
		}
		_ = silent[0].Close()
		synctest.Wait()
		tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{ServerName: "svc", DialContext: network.Dial})
		defer func() { _ = tr.Close() }()
		mustGet(t, tr, "svc")
	})
	for _, opts := range []rotation.ServerOptions{{MaxConns: -1}, {MaxConnsPerAddress: -1}} {
		opts.Authorize = rotation.AnyVerifiedPeer()
		if _, err := open(t, rotation.Static(newCA(t, "ca").leaf(t, "svc", nil)), 0).Server(opts); err == nil {
			t.Errorf("%+v was accepted", opts)
		}
	}
}

// slowConn reads nothing while it is stopped, and waits before each read.
type slowConn struct {
	net.Conn
	pause   atomic.Int64 // ns
	stopped atomic.Bool
	closed  chan struct{}
}

func (c *slowConn) Read(p []byte) (int, error) {
	if c.stopped.Load() {
		<-c.closed
	}
	time.Sleep(time.Duration(c.pause.Load()))
	return c.Conn.Read(p)
}

func (c *slowConn) Close() error {
	defer func() {
		select {
		case <-c.closed:
		default:
			close(c.closed)
		}
	}()
	return c.Conn.Close()
}

// TestServeCutsPeersThatTakeNothing expects that a peer that takes no byte for 30 s is
// cut, and that a slow one is not, however long its answer takes.
func TestServeCutsPeersThatTakeNothing(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		for _, stops := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", stops", false: ", slow"}[stops], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { takeNothing(t, h2, stops) })
			})
		}
	}
}

func takeNothing(t *testing.T, h2, stops bool) {
	const size = 1 << 20
	wrote, slowed := make(chan error, 1), make(chan struct{})
	ca, network, _ := bubble(t, rotation.ServerOptions{}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-slowed // else much of it may be read by then
		_, err := w.Write(make([]byte, size))
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		wrote <- err
	})
	slow := &slowConn{closed: make(chan struct{})}
	tr := transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{
		ServerName: "svc", HTTP1Only: !h2,
		DialContext: func(ctx context.Context, network_, addr string) (net.Conn, error) {
			var err error
			slow.Conn, err = network.Dial(ctx, network_, addr)
			return slow, err
		},
	})
	resp := start(t, tr, "svc", "/")
	defer func() {
		_, _ = resp.Body.Close(), tr.Close()
		time.Sleep(time.Minute) // a last read may be under way
	}()
	began := time.Now()
	if stops {
		slow.stopped.Store(true)
		close(slowed)
		if err := <-wrote; err == nil {
			t.Error("the handler wrote all of an answer that nobody took")
		}
		if took := time.Since(began); took < 25*time.Second || took > 35*time.Second {
			t.Errorf("the handler learnt of it after %s, want 30 s", took)
		}
		return
	}
	slow.pause.Store(int64(2 * time.Second)) // before each record of some KiB: minutes for all
	close(slowed)
	n, err := io.Copy(io.Discard, resp.Body)
	if took := time.Since(began); err != nil || n != size || took < time.Minute {
		t.Errorf("%d of %d bytes after %s: %v", n, size, took, err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("the handler: %v", err)
	}
}
