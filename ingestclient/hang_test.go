package ingestclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/rotation"
)

// hung listens and hands each connection to then, which may keep it.
func hung(t *testing.T, then func(net.Conn)) string {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			serving.Go(func() { then(c) })
		}
	})
	return "https://" + ln.Addr().String()
}

// TestHangingElements expects that an element that hangs or resets ends no upload: the
// next element is tried at once, and without another one the attempt is repeated. Only
// the caller ends it.
func TestHangingElements(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	s := ingesttest.Start(t, ingesttest.Options{})
	server, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(s.CA.Material(t, "storage-element"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	conf, err := server.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	// At the same time, and not as parallel tests: those are as many as there are cores, and each waits for 20 s.
	var all sync.WaitGroup
	check := func(name string, c *ingestclient.Client, do func(*ingestclient.Client) error) {
		all.Go(func() {
			if err := do(c); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for name, then := range map[string]func(net.Conn){
		"before the handshake": func(net.Conn) {},
		"in the handshake": func(c net.Conn) {
			_, _ = c.Write([]byte{22, 3, 3, 0, 100, 2}) // the begin of a ServerHello
			_, _ = io.Copy(io.Discard, c)
		},
		"after the handshake": func(c net.Conn) { _ = tls.Server(c, conf).HandshakeContext(context.WithoutCancel(t.Context())) },
		"resets in it": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		},
	} {
		first, second := ingestclient.Element{URL: hung(t, then)}, ingestclient.Element{URL: s.StorageURL, Priority: 1}
		check(name+", two elements", hangClient(t, s, first, second), func(c *ingestclient.Client) error { return usesTheSecond(t, c, s.StorageURL) })
		check(name+", one element", hangClient(t, s, first), func(c *ingestclient.Client) error { return isRepeated(t, c, name == "after the handshake") })
		if name != "resets in it" {
			check(name+", a deadline", hangClient(t, s, first, second), func(c *ingestclient.Client) error { return endsWithItsCaller(t, c) })
		}
	}
	all.Wait()
}

func hangClient(t *testing.T, s *ingesttest.Stack, elements ...ingestclient.Element) *ingestclient.Client {
	t.Helper()
	cfg := s.Config()
	cfg.Elements, cfg.MaxAttempts, cfg.ResponseTimeout = elements, 2, 15*time.Second
	c, err := ingestclient.New(cfg, s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func usesTheSecond(t *testing.T, c *ingestclient.Client, second string) error {
	waited, quick := 0, time.Duration(0)
	for i := range 5 {
		begun := time.Now()
		file, err := c.Upload(t.Context(), ingestclient.BytesContent("f", []byte("x")), ingestclient.Meta{})
		if err != nil || file.Element != second {
			return fmt.Errorf("upload %d: %+v, %w", i, file, err)
		}
		if waited += file.Attempts - 1; file.Attempts == 1 {
			quick += time.Since(begun)
		}
	}
	// Once for each pause, of which each is a second at least: on a busy machine more of them pass.
	if st := c.Stats(); st.Retries != 0 || waited > 2+int(quick/time.Second) {
		return fmt.Errorf("%d of 5 uploads waited, %d retries: the next element was not asked at once", waited, st.Retries)
	}
	return nil
}

func isRepeated(t *testing.T, c *ingestclient.Client, sent bool) error {
	_, err := c.Upload(t.Context(), ingestclient.BytesContent("f", []byte("x")), ingestclient.Meta{})
	e, ok := errors.AsType[*ingestclient.RequestError](err)
	if !ok {
		return fmt.Errorf("no error of a request: %w", err)
	}
	// A small file is in the server's buffers once the handshake is over.
	good := errors.Is(err, ingestclient.ErrConnection) && !errors.Is(err, context.DeadlineExceeded) && e.Attempt == 2 && e.Retryable
	if sent {
		good = errors.Is(err, ingestclient.ErrAmbiguous) && errors.Is(err, ingestclient.ErrNoAnswer) && e.Attempt == 1
	}
	if !good {
		return fmt.Errorf("attempt %d: %w", e.Attempt, err)
	}
	return nil
}

func endsWithItsCaller(t *testing.T, c *ingestclient.Client) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Upload(ctx, ingestclient.BytesContent("f", []byte("x")), ingestclient.Meta{})
	e, ok := errors.AsType[*ingestclient.RequestError](err)
	if !ok || !errors.Is(err, context.DeadlineExceeded) || e.Attempt != 1 || e.Retryable {
		return fmt.Errorf("%+v: %w", e, err)
	}
	return nil
}

// relay passes connections on to an element until it is stopped, as SIGSTOP
// does it: what is open stays open, new connections are accepted, nothing moves.
type relay struct {
	mu      sync.Mutex
	stopped bool
	moving  *sync.Cond
}

func newRelay(t *testing.T, to string) (*relay, string) {
	t.Helper()
	r := &relay{}
	r.moving = sync.NewCond(&r.mu)
	url := hung(t, func(c net.Conn) {
		var d net.Dialer
		up, err := d.DialContext(context.WithoutCancel(t.Context()), "tcp", strings.TrimPrefix(to, "https://"))
		if err != nil {
			return
		}
		go func() { r.copy(up, c); _ = up.Close() }()
		r.copy(c, up)
		_ = c.Close()
	})
	t.Cleanup(func() { r.stop(false) }) // before the connections are closed
	return r, url
}

func (r *relay) copy(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		for r.stopped {
			r.moving.Wait()
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (r *relay) stop(stopped bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = stopped
	r.moving.Broadcast()
}

// TestElementStopsBetweenUploads stops an element while connections to it are open. No
// file is lost, because no byte of a file is sent before the element has answered. When
// it goes on, it is used again.
func TestElementStopsBetweenUploads(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	s := ingesttest.Start(t, ingesttest.Options{})
	r, url := newRelay(t, s.StorageURL)
	cfg := s.Config()
	cfg.Elements = []ingestclient.Element{{URL: url}, {URL: s.StorageURL, Priority: 1}}
	c, err := ingestclient.New(cfg, s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	upload := func() *ingestclient.File {
		t.Helper()
		file, err := c.Upload(t.Context(), ingestclient.BytesContent("f", []byte("x")), ingestclient.Meta{})
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	if at := upload().Element; at != url {
		t.Fatalf("the first file went to %s", at)
	}
	r.stop(true)
	for range 3 {
		if at := upload().Element; at != s.StorageURL {
			t.Errorf("went to %s", at)
		}
	}
	r.stop(false)
	for deadline := time.Now().Add(time.Minute); upload().Element != url; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first element is not used again")
		}
	}
}
