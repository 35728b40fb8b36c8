package rotgrpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/rotgrpc"
)

func withAuthority(name string) grpc.DialOption { return grpc.WithAuthority(name) }
func callAuthority(name string) grpc.CallOption { return grpc.CallAuthority(name) }

// TestEveryEndOfAStreamReleases supersedes the generation while a stream is open. The
// drain timeout is an hour, so only the end of the stream can close the connection.
func TestEveryEndOfAStreamReleases(t *testing.T) {
	type step = func(ctx context.Context, cancel context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func())
	for name, run := range map[string]step{
		"receive to the end": func(ctx context.Context, _ context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			s := openStream(ctx, t, c)
			rotate()
			_ = s.CloseSend()
			if _, err := s.Recv(); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		},
		"status of the server": func(ctx context.Context, _ context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			s := openStream(ctx, t, c)
			rotate()
			_ = s.Send(&testpb.StreamingOutputCallRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(codes.DataLoss)}})
			_, err := s.Recv()
			wantStatus(t, "the stream", err, codes.DataLoss, "as asked for")
		},
		"cancelled": func(ctx context.Context, cancel context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			openStream(ctx, t, c)
			rotate()
			cancel()
		},
		"deadline": func(ctx context.Context, _ context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			var s duplex
			for wait := 200 * time.Millisecond; s == nil; wait *= 2 { // a busy machine takes longer to open one
				short, done := context.WithTimeout(ctx, wait)
				t.Cleanup(done)
				opened, err := testpb.NewTestServiceClient(c).FullDuplexCall(short)
				if err == nil {
					_, err = ping(opened)
				}
				switch {
				case err == nil:
					s = opened
				case status.Code(err) != codes.DeadlineExceeded || ctx.Err() != nil:
					t.Fatal(err)
				}
			}
			rotate()
			_, err := s.Recv()
			wantStatus(t, "the stream", err, codes.DeadlineExceeded, "")
		},
		"one answer": func(ctx context.Context, _ context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			s, err := testpb.NewTestServiceClient(c).StreamingInputCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(&testpb.StreamingInputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			rotate()
			if _, err := s.CloseAndRecv(); err != nil {
				t.Error(err)
			}
		},
		"header fails": func(ctx context.Context, _ context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			s, err := testpb.NewTestServiceClient(c).HalfDuplexCall(ctx) // not implemented
			if err != nil {
				t.Fatal(err)
			}
			rotate()
			if _, err := s.Header(); err == nil {
				_, err = s.Recv()
				wantStatus(t, "the stream", err, codes.Unimplemented, "")
			}
		},
		"message cannot be sent": func(ctx context.Context, _ context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			s := openStream(ctx, t, c)
			rotate()
			if err := s.SendMsg("no message"); err == nil {
				t.Error("sent")
			}
		},
		"never began": func(ctx context.Context, cancel context.CancelFunc, t *testing.T, c *rotgrpc.Client, rotate func()) {
			cancel()
			if _, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx); status.Code(err) != codes.Canceled {
				t.Error(err)
			}
			rotate()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, worldOptions{})
			c := w.client(t)
			ctx, cancel := context.WithCancel(limit(t))
			defer cancel()
			run(ctx, cancel, t, c, func() { w.clientSrc.Push(t, w.ca.Leaf(t, "ingester")) })
			waitFor(t, "the old lane closed", func() bool {
				_, old := connections(w.clientID)
				return rotgrpc.Lanes(c) == 1 && old == 0
			})
		})
	}
}

// TestMaxConnectionAge lets the server send GOAWAY all the time, and expects that no
// call fails.
func TestMaxConnectionAge(t *testing.T) {
	w := newWorld(t, worldOptions{})
	server, err := w.serverID.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, server, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 50 * time.Millisecond, MaxConnectionAgeGrace: 10 * time.Second}))
	c := newClient(t, w.clientID, "passthrough:///"+addr)
	ctx := limit(t)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if _, err := whoami(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	w := newWorld(t, worldOptions{})
	c := w.client(t)
	ctx := limit(t)
	old := openStream(ctx, t, c)
	w.clientSrc.Push(t, w.ca.Leaf(t, "ingester"))
	young := openStream(ctx, t, c)
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closers.Wait()
	for _, s := range []duplex{old, young} {
		if _, err := s.Recv(); err == nil {
			t.Error("a stream outlives its client")
		}
	}
	if all, _ := connections(w.clientID); all != 0 || rotgrpc.Lanes(c) != 0 {
		t.Errorf("%d connections and %d generationConns are left", all, rotgrpc.Lanes(c))
	}
	_, err := whoami(ctx, c)
	wantStatus(t, "a call after Close", err, codes.Canceled, "closed")
	w.clientSrc.Push(t, w.ca.Leaf(t, "ingester"))
	_, err = whoami(ctx, c)
	wantStatus(t, "a call after Close and a rotation", err, codes.Canceled, "closed")
	_, err = testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
	wantStatus(t, "a stream after Close", err, codes.Canceled, "closed")
}

func TestNewClientSaysWhatIsWrong(t *testing.T) {
	id := pkitest.Open(t, rotation.Config{Source: rotation.Static(pkitest.NewCA(t).Leaf(t, "ingester"))})
	if _, err := rotgrpc.NewClient(id, "passthrough:///%zz", rotation.TransportOptions{}, grpc.WithDefaultServiceConfig("{")); err == nil {
		t.Error("a broken option was accepted")
	}
	for name, opts := range map[string]rotation.TransportOptions{
		"HTTP1Only": {HTTP1Only: true}, "Proxy": {Proxy: &url.URL{Scheme: "http", Host: "proxy:3128"}}, "DialContext": {DialContext: (&net.Dialer{}).DialContext},
		"MinVersion": {MinVersion: tls.VersionTLS11}, "ServerName": {ServerName: "storage:443"},
	} {
		if _, err := rotgrpc.NewClient(id, "passthrough:///storage", opts); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Credentials of the caller do not win: that would be a client in cleartext.
	c := newClient(t, id, "passthrough:///127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if _, err := whoami(limit(t), c); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if err := id.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := whoami(limit(t), c); status.Code(err) != codes.Unavailable {
		t.Errorf("a call after the end of the identity: %v", err)
	}
}

// TestOtherProtocolsAreClosed expects that a peer without HTTP/2 is refused, on both
// sides.
func TestOtherProtocolsAreClosed(t *testing.T) {
	w := newWorld(t, worldOptions{})
	server, err := w.serverID.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer(), NextProtos: []string{"http/1.1", "h2"}})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := w.clientID.ClientTLSConfig("storage")
	if err != nil {
		t.Fatal(err)
	}
	for _, protos := range [][]string{nil, {"http/1.1"}} {
		conf := conf.Clone()
		conf.NextProtos = protos
		near, far := pipe(t)
		client := make(chan error, 1)
		go func() {
			conn := tls.Client(near, conf)
			_, err := conn.Read(make([]byte, 1))
			client <- err
		}()
		if _, _, err := rotgrpc.ServerCredentials(server).ServerHandshake(far); err == nil || !strings.Contains(err.Error(), "gRPC needs") {
			t.Errorf("protocols %q: %v", protos, err)
		}
		if err := <-client; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("protocols %q: the connection is open: %v", protos, err)
		}
	}
	if all, _ := connections(w.serverID); all != 0 {
		t.Errorf("%d connections are left", all)
	}
}

// pipe is one TCP connection.
func pipe(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	for _, c := range []net.Conn{near, far} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

// TestServerCredentialsAreForServers calls the methods of credentials other than the
// handshake.
func TestServerCredentialsAreForServers(t *testing.T) {
	w := newWorld(t, worldOptions{})
	server, err := w.serverID.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	creds := rotgrpc.ServerCredentials(server).Clone()
	if err := creds.OverrideServerName("other"); err != nil { //nolint:staticcheck // SA1019: gRPC still has it in the interface
		t.Error(err)
	}
	if got := creds.Info().SecurityProtocol; got != "tls" {
		t.Errorf("security protocol %q", got)
	}
	near, far := pipe(t)
	if _, _, err := creds.ClientHandshake(t.Context(), "storage", near); err == nil {
		t.Error("server credentials opened a connection")
	}
	if n, err := far.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came", n)
	}
}

// TestClientCredentialsAreForClients expects that a copy uses the same transport, that
// OverrideServerName has no effect, and that clients accept no connection.
func TestClientCredentialsAreForClients(t *testing.T) {
	w := newWorld(t, worldOptions{})
	creds := rotgrpc.ClientCredentials(w.client(t)).Clone()
	if err := creds.OverrideServerName("other"); err != nil { //nolint:staticcheck // SA1019: gRPC still has it in the interface
		t.Error(err)
	}
	raw, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := creds.ClientHandshake(limit(t), "storage:443", raw) // "other" is no name of the server
	if err != nil {
		t.Fatalf("a handshake of the copy: %v", err)
	}
	_ = conn.Close()
	near, far := pipe(t)
	if _, _, err := creds.ServerHandshake(near); err == nil {
		t.Error("client credentials accepted a connection")
	}
	if n, err := far.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes came", n)
	}
}
