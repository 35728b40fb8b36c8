package proxy_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// rotations returns how often the tests rotate: a few times, or what the environment says.
func rotations(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("ARTSTORE_PROXY_ROTATIONS"))
	if err != nil {
		return 4
	}
	return n
}

// TestRotations rotates the certificates of both ends while WebSockets and streams of gRPC are
// open through both sides, and new ones are opened. Every request that begins after a rotation
// uses the new certificates, and no stream is cut, however many rotations it has seen.
func TestRotations(t *testing.T) {
	t.Parallel()
	w := newDrainingWorld(t, time.Hour)
	// The service tells of each request what certificate the peer has shown.
	_, web := w.server(httpService(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			webSocketService().ServeHTTP(rw, r)
			return
		}
		_, _ = io.WriteString(rw, r.Header.Get("Client-Cert"))
	})), http1)
	_, calls := w.server(startGRPC(t), h2c)
	overHTTP := func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP }
	_, toWeb := w.clientSide(listen(t), web.addr, overHTTP)
	_, toCalls := w.clientSide(listen(t), calls.addr, overHTTP)
	direct := w.over(web.addr, rotation.TransportOptions{})

	var sockets []*websocket.Conn
	var streams []testpb.TestService_FullDuplexCallClient
	for round := range rotations(t) {
		sockets = append(sockets, webSocket(t, dial(t, "tcp", toWeb.addr), "localhost"))
		streams = append(streams, duplex(t, toCalls.addr))
		for _, ws := range sockets {
			say(t, ws, fmt.Sprint("round ", round))
		}
		for _, s := range streams {
			exchange(t, s, fmt.Sprint("round ", round))
		}
		w.rotate()
		_, shown := do(t, plainClient(), request(t, http.MethodGet, "http://"+toWeb.addr, ""))
		resp, _ := do(t, direct, request(t, http.MethodGet, "https://svc/", ""))
		if want := w.clientID.Current().Leaf(); !bytes.Equal(decode(t, shown), want.Raw) {
			t.Errorf("round %d: a request of after the rotation has an old certificate", round)
		}
		if got := resp.TLS.PeerCertificates[0]; !got.Equal(w.serverID.Current().Leaf()) {
			t.Errorf("round %d: the server shows an old certificate", round)
		}
	}
	for _, ws := range sockets {
		say(t, ws, "at the end")
	}
	for _, s := range streams {
		exchange(t, s, "at the end")
		endDuplex(t, s)
	}
	if n := w.serverID.Status().Forced + w.clientID.Status().Forced; n != 0 {
		t.Errorf("%d connections were cut", n)
	}
}

// TestClientStreamsDrain expects that a connection of TCP through the client side goes on after
// a rotation, is cut when the time to drain is over, and not before.
func TestClientStreamsDrain(t *testing.T) {
	t.Parallel()
	const drain = 400 * time.Millisecond
	w := newDrainingWorld(t, drain)
	_, server := w.server(tcpService(t, echo))
	_, client := w.clientSide(listen(t), server.addr)
	conn := dial(t, "tcp", client.addr)
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	pass := func() error {
		_, err := io.WriteString(conn, "x")
		if err == nil {
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		return err
	}
	must(t, pass())
	began := time.Now()
	w.clientSrc.Push(t, w.client())
	var err error
	for err == nil {
		err = pass()
	}
	if took := time.Since(began); took < drain || isTimeout(err) {
		t.Errorf("cut after %s: %v", took, err)
	}
	conn = dial(t, "tcp", client.addr)
	must(t, pass()) // the next one has the new certificate
}

// TestUploaderThroughProxy uploads with our client to a Storage Element that speaks plain
// HTTP, while both certificates rotate: every file arrives whole, at the first attempt.
func TestUploaderThroughProxy(t *testing.T) {
	t.Parallel()
	stack := ingesttest.Start(t, ingesttest.Options{Unbound: true})
	jwks, err := stack.Identity.Transport(rotation.TransportOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, jwks.Close()) })
	storage, err := devstack.NewStorage(devstack.StorageConfig{Dir: t.TempDir(), JWKSURL: stack.AdminURL + devstack.JWKSPath, JWKSTransport: jwks})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = storage.Run(ctx) }) // returns the end of ctx
	t.Cleanup(func() { stop(); running.Wait() })
	var uploads sync.WaitGroup

	src := pkitest.NewSource(stack.CA.Material(t, "storage-element"))
	id := pkitest.Open(t, rotation.Config{Source: src, DrainTimeout: time.Hour})
	s, err := proxy.NewServer(proxy.ServerConfig{Identity: id, Allow: []string{"ingester"}, To: address(t, httpService(t, storage.Handler())), Protocol: proxy.HTTP})
	must(t, err)
	server := run(t, listen(t), s)
	cfg := stack.Config()
	cfg.Elements, cfg.MaxAttempts = []ingestclient.Element{{URL: "https://" + server.addr}}, 1
	client, err := ingestclient.New(cfg, stack.Identity)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })

	done, files := make(chan struct{}), 0
	uploads.Go(func() {
		for content := bytes.Repeat([]byte("0123456789abcdef"), 20<<10); ; files++ {
			select {
			case <-done:
				return
			default:
			}
			name := fmt.Sprintf("%d.bin", files)
			if _, err := client.Upload(ctx, ingestclient.ReaderContent(name, bytes.NewReader(content), int64(len(content))), ingestclient.Meta{}); err != nil {
				t.Errorf("upload %d: %v", files, err)
			}
		}
	})
	for range rotations(t) {
		before := s.Stats().Requests
		await(t, "uploads", func() bool { return s.Stats().Requests > before+1 })
		src.Push(t, stack.CA.Material(t, "storage-element"))
		stack.RotateClient(t)
	}
	close(done)
	uploads.Wait()
	if n, err := storage.Verify(t.Context()); err != nil || len(storage.Files()) != files {
		t.Errorf("%d of %d files are stored, %v of them whole: %v", len(storage.Files()), files, n, err)
	}
}

// decode reads a byte sequence of structured fields (RFC 8941 §3.3.5).
func decode(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.Trim(text, ":"))
	must(t, err)
	return b
}
