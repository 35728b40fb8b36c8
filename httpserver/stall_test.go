package httpserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/artstore/artstore-pki/httpserver"
)

// The tests of this file run the real server and the real TLS stack over pipes in
// memory, in a bubble of testing/synctest: deadlines are those of production, and
// a busy machine changes nothing.

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from gives an end of a pipe the address of its peer.
type from struct {
	net.Conn
	addr *net.TCPAddr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// inMemory is a server with the deadlines of the authority.
type inMemory struct {
	ln   *pipes
	cert *httptest.Server // closed; its certificate is for example.com
}

// inBubble serves h in a bubble for the time of f.
func inBubble(t *testing.T, h http.HandlerFunc, f func(t *testing.T, m *inMemory)) {
	t.Helper()
	brought := httptest.NewTLSServer(nil)
	brought.Close()
	synctest.Test(t, func(t *testing.T) {
		m := &inMemory{&pipes{make(chan net.Conn), make(chan struct{})}, brought}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- httpserver.Serve(ctx, m.ln, httpserver.Config{
				Handler: h, Logger: slog.New(slog.DiscardHandler), Conns: caps(64, perAddress),
				TLS:         &tls.Config{MinVersion: tls.VersionTLS13, Certificates: brought.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}},
				BodyTimeout: 30 * time.Second, WriteTimeout: 40 * time.Second, Idle: 15 * time.Second, Streams: streams,
			})
		}()
		defer func() {
			cancel()
			<-done
		}()
		f(t, m)
	})
}

const (
	streams    = 32
	perAddress = 16 // connections, and so 32 open requests
)

// peer is an HTTP/2 client that does what it is told, and no more.
type peer struct {
	t      *testing.T
	raw    net.Conn
	framer *http2.Framer
	next   uint32 // stream
	ends   map[uint32]string
	closed chan struct{} // the server closed the connection
	deaf   chan struct{} // closed: read no more
	mu     sync.Mutex    // guards ends
}

// connect does the handshake and sends the settings; window is what each stream grants.
func (m *inMemory) connect(t *testing.T, addr string, window uint32) *peer {
	t.Helper()
	client, server := net.Pipe()
	m.ln.conns <- from{server, &net.TCPAddr{IP: net.ParseIP(addr), Port: 1}}
	roots := x509.NewCertPool()
	roots.AddCert(m.cert.Certificate())
	conn := tls.Client(client, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ServerName: "example.com", RootCAs: roots})
	t.Cleanup(func() { _ = client.Close() })
	p := &peer{t: t, raw: client, framer: http2.NewFramer(conn, conn), next: 1, ends: make(map[uint32]string), closed: make(chan struct{}), deaf: make(chan struct{})}
	p.must(conn.HandshakeContext(t.Context()))
	go p.read()
	_, err := io.WriteString(conn, http2.ClientPreface)
	p.must(err)
	p.must(p.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}))
	synctest.Wait()
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// read notes how each stream ended, until the connection does.
func (p *peer) read() {
	defer close(p.closed)
	for {
		select {
		case <-p.deaf:
			return
		default:
		}
		f, err := p.framer.ReadFrame()
		if err != nil {
			return
		}
		end := ""
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			end = "reset " + f.ErrCode.String()
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				end = "answered"
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				end = "answered"
			}
		}
		if id := f.Header().StreamID; end != "" && id != 0 {
			p.mu.Lock()
			if p.ends[id] == "" {
				p.ends[id] = end
			}
			p.mu.Unlock()
		}
	}
}

func (p *peer) end(id uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ends[id]
}

// request opens a stream; without a body it is complete.
func (p *peer) request(method string, complete bool) uint32 {
	p.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, kv := range [][2]string{{":method", method}, {":path", "/"}, {":scheme", "https"}, {":authority", "example.com"}} {
		p.must(enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]}))
	}
	id := p.next
	p.next += 2
	p.must(p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: complete}))
	return id
}

func (p *peer) open() bool {
	select {
	case <-p.closed:
		return false
	default:
		return true
	}
}

// TestStreamsWithoutWindowEnd expects that the streams of a peer that grants no window
// are reset within a minute, that their handlers return, and that another connection is
// answered meanwhile.
func TestStreamsWithoutWindowEnd(t *testing.T) {
	var running atomic.Int32
	handler := func(w http.ResponseWriter, _ *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		_, _ = io.WriteString(w, strings.Repeat("x", 32<<10))
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		bad := m.connect(t, attacker, 0)
		var ids []uint32
		for range streams {
			ids = append(ids, bad.request(http.MethodGet, true))
		}
		synctest.Wait()
		if n := running.Load(); n != streams {
			t.Fatalf("%d handlers wait for a window, want %d", n, streams)
		}
		over := bad.request(http.MethodGet, true)
		synctest.Wait()
		if end := bad.end(over); !strings.HasPrefix(end, "reset") {
			t.Errorf("a stream above the cap of a connection: %q, want a reset", end)
		}
		good := m.connect(t, honest, 1<<20)
		id := good.request(http.MethodGet, true)
		synctest.Wait()
		if end := good.end(id); end != "answered" {
			t.Errorf("another peer beside it: %q", end)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := running.Load(); n != 0 {
			t.Errorf("%d handlers still run after a minute", n)
		}
		for _, id := range ids {
			if end := bad.end(id); !strings.HasPrefix(end, "reset") {
				t.Fatalf("stream %d after a minute: %q, want a reset", id, end)
			}
		}
		if bad.open() {
			t.Error("a connection without streams is open beyond its idle time")
		}
	})
}

// TestOpenRequestsOfOneAddress expects a cap on the open requests of an address over all
// its connections. A request is open until its answer is sent, even if its handler has
// returned.
func TestOpenRequestsOfOneAddress(t *testing.T) {
	const most = 2 * perAddress
	handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") }
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		var ids [2][]uint32
		bad := [2]*peer{m.connect(t, attacker, 0), m.connect(t, attacker, 0)}
		for i, p := range bad {
			for range streams {
				ids[i] = append(ids[i], p.request(http.MethodGet, true))
				synctest.Wait()
			}
		}
		held, reset := 0, 0
		for i, p := range bad {
			for _, id := range ids[i] {
				switch end := p.end(id); {
				case end == "":
					held++
				case strings.HasPrefix(end, "reset"):
					reset++
				}
			}
		}
		if held != most || reset != 2*streams-most {
			t.Errorf("%d streams of one address are open and %d were reset, want %d open", held, reset, most)
		}
		good := m.connect(t, honest, 1<<20)
		id := good.request(http.MethodGet, true)
		synctest.Wait()
		if end := good.end(id); end != "answered" {
			t.Errorf("another address beside it: %q", end)
		}
		time.Sleep(time.Minute)
		again := m.connect(t, attacker, 1<<20)
		id = again.request(http.MethodGet, true)
		synctest.Wait()
		if end := again.end(id); end != "answered" {
			t.Errorf("the same address a minute later: %q", end)
		}
	})
}

// TestSmallAnswerWithoutWindowEnds expects that an answer that waits in the buffer of
// net/http after its handler has returned is reset too.
func TestSmallAnswerWithoutWindowEnds(t *testing.T) {
	handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") }
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		bad := m.connect(t, attacker, 0)
		id := bad.request(http.MethodGet, true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if end := bad.end(id); !strings.HasPrefix(end, "reset") || bad.open() {
			t.Errorf("after a minute: %q, connection open %v", end, bad.open())
		}
	})
}

// TestDeafConnectionEnds expects that a connection is closed if its peer does not read
// from it.
func TestDeafConnectionEnds(t *testing.T) {
	var gone chan struct{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 32<<10))
		<-r.Context().Done()
		close(gone)
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		gone = make(chan struct{}) // of the bubble
		bad := m.connect(t, attacker, 1<<20)
		close(bad.deaf)
		bad.request(http.MethodGet, true) // its answer wakes the reader once more
		start := time.Now()
		<-gone
		if took := time.Since(start); took > time.Minute {
			t.Errorf("a connection that nobody reads from ended after %s", took)
		}
	})
}

// TestParkedBodies expects that a request whose body does not come ends, and that an
// address may have as many of them as connections.
func TestParkedBodies(t *testing.T) {
	var waiting atomic.Int32
	handler := func(w http.ResponseWriter, r *http.Request) {
		waiting.Add(1)
		defer waiting.Add(-1)
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusRequestTimeout)
		}
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		bad, other := m.connect(t, attacker, 1<<20), m.connect(t, attacker, 1<<20)
		var parked []uint32
		for range perAddress {
			parked = append(parked, bad.request(http.MethodPost, false))
		}
		synctest.Wait()
		for range streams - perAddress {
			bad.request(http.MethodPost, false)
			other.request(http.MethodPost, false)
		}
		synctest.Wait()
		if n := waiting.Load(); n != perAddress {
			t.Errorf("%d bodies of one address are waited for, want %d", n, perAddress)
		}
		good := m.connect(t, honest, 1<<20)
		id := good.request(http.MethodPost, false)
		good.must(good.framer.WriteData(id, true, []byte("body")))
		synctest.Wait()
		if end := good.end(id); end != "answered" {
			t.Errorf("a body of another address: %q", end)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := waiting.Load(); n != 0 {
			t.Errorf("%d handlers wait for bodies after a minute", n)
		}
		for _, id := range parked {
			if bad.end(id) == "" {
				t.Errorf("stream %d was not ended", id)
			}
		}
		again := m.connect(t, attacker, 1<<20)
		id = again.request(http.MethodPost, false)
		again.must(again.framer.WriteData(id, true, nil))
		synctest.Wait()
		if end := again.end(id); end != "answered" {
			t.Errorf("the same address a minute later: %q", end)
		}
	})
}

// TestArrivedBodiesDoNotCount expects that a body that has arrived does not count,
// however long its handler takes.
func TestArrivedBodiesDoNotCount(t *testing.T) {
	var release chan struct{}
	handler := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-release
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		release = make(chan struct{}) // of the bubble
		defer close(release)
		p := m.connect(t, honest, 1<<20)
		var ids []uint32
		for range streams {
			id := p.request(http.MethodPost, false)
			p.must(p.framer.WriteData(id, true, []byte("body")))
			ids = append(ids, id)
			synctest.Wait()
		}
		for _, id := range ids {
			if end := p.end(id); end != "" {
				t.Fatalf("stream %d ended (%q) while its handler was to run", id, end)
			}
		}
	})
}

// TestPaced expects that a large answer goes on while its peer takes some of it, and
// ends when the peer takes nothing.
func TestPaced(t *testing.T) {
	const size, within = 1 << 20, 20 * time.Second
	var wrote atomic.Int64
	handler := func(w http.ResponseWriter, _ *http.Request) {
		n, _ := httpserver.Paced(w, within).Write(make([]byte, size))
		wrote.Store(int64(n))
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) {
		slow := m.connect(t, honest, 64<<10)
		slow.must(slow.framer.WriteWindowUpdate(0, 8<<20))
		id := slow.request(http.MethodGet, true)
		for range size/(64<<10) + 1 {
			time.Sleep(within / 2)
			if slow.end(id) == "" {
				slow.must(slow.framer.WriteWindowUpdate(id, 64<<10))
			}
			synctest.Wait()
		}
		if end := slow.end(id); end != "answered" || wrote.Load() != size {
			t.Errorf("a slow peer got %d bytes: %q", wrote.Load(), end)
		}
		stalled := m.connect(t, honest, 64<<10)
		id = stalled.request(http.MethodGet, true)
		time.Sleep(within + time.Second)
		synctest.Wait()
		if end := stalled.end(id); !strings.HasPrefix(end, "reset") {
			t.Errorf("a peer that stopped taking the answer: %q, want a reset", end)
		}
	})
}

// TestIdleConnectionEnds expects that a connection without requests is closed after its
// idle time.
func TestIdleConnectionEnds(t *testing.T) {
	inBubble(t, func(http.ResponseWriter, *http.Request) {}, func(t *testing.T, m *inMemory) {
		p := m.connect(t, honest, 1<<20)
		id := p.request(http.MethodGet, true)
		synctest.Wait()
		if end := p.end(id); end != "answered" {
			t.Fatal(end)
		}
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if !p.open() {
			t.Error("closed before its idle time")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if p.open() {
			t.Error("open after its idle time")
		}
	})
}
