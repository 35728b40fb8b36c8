package rotgrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/rotgrpc"
)

// service answers everything with the serial of its client.
type service struct {
	testpb.UnimplementedTestServiceServer
}

func caller(ctx context.Context) (*testpb.Payload, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || info.SecurityLevel != credentials.PrivacyAndIntegrity {
		return nil, status.Error(codes.Internal, "no TLS")
	}
	return &testpb.Payload{Body: []byte(info.State.PeerCertificates[0].SerialNumber.Text(16))}, nil
}

func (service) UnaryCall(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	p, err := caller(ctx)
	return &testpb.SimpleResponse{Payload: p}, err
}

func (service) StreamingInputCall(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	for {
		switch _, err := s.Recv(); {
		case errors.Is(err, io.EOF):
			return s.SendAndClose(&testpb.StreamingInputCallResponse{})
		case err != nil:
			return err
		}
	}
}

// FullDuplexCall answers until the client closes; an asked status ends it earlier.
func (service) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		req, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case req.GetResponseStatus() != nil:
			return status.Error(codes.Code(req.GetResponseStatus().GetCode()), "as asked for")
		}
		p, err := caller(s.Context())
		if err != nil {
			return err
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: p}); err != nil {
			return err
		}
	}
}

// world is one server and what both sides are made of.
type world struct {
	ca                   *pkitest.CA
	clientSrc, serverSrc *pkitest.Source
	clientID, serverID   *rotation.Identity
	addr                 string
}

type worldOptions struct {
	drain     time.Duration // of both sides; default 1 h: nothing ends by it
	authorize rotation.Authorizer
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	if o.drain == 0 {
		o.drain = time.Hour
	}
	if o.authorize == nil {
		o.authorize = rotation.AllowNames("ingester")
	}
	w := &world{ca: pkitest.NewCA(t)}
	w.clientSrc = pkitest.NewSource(w.ca.Leaf(t, "ingester"))
	w.serverSrc = pkitest.NewSource(w.ca.Leaf(t, "storage"))
	w.clientID = pkitest.Open(t, rotation.Config{Source: w.clientSrc, DrainTimeout: o.drain})
	w.serverID = pkitest.Open(t, rotation.Config{Source: w.serverSrc, DrainTimeout: o.drain})
	server, err := w.serverID.Server(rotation.ServerOptions{Authorize: o.authorize})
	if err != nil {
		t.Fatal(err)
	}
	w.addr = serve(t, server)
	return w
}

func serve(t testing.TB, server *rotation.Server, opts ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(append(opts, rotgrpc.ServerOptions(server)...)...)
	testpb.RegisterTestServiceServer(srv, service{})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return ln.Addr().String()
}

// client of w's server, by its address.
func (w *world) client(t testing.TB, opts ...grpc.DialOption) *rotgrpc.Client {
	t.Helper()
	return newClient(t, w.clientID, "passthrough:///"+w.addr, opts...)
}

func newClient(t testing.TB, id *rotation.Identity, target string, opts ...grpc.DialOption) *rotgrpc.Client {
	t.Helper()
	c, err := rotgrpc.NewClient(id, target, rotation.TransportOptions{}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// limit ends calls that hang, long after they should have ended.
func limit(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// whoami is the serial that the server sees in one unary call.
func whoami(ctx context.Context, c grpc.ClientConnInterface) (string, error) {
	resp, err := testpb.NewTestServiceClient(c).UnaryCall(ctx, &testpb.SimpleRequest{})
	return string(resp.GetPayload().GetBody()), err
}

type duplex = grpc.BidiStreamingClient[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]

func openStream(ctx context.Context, t testing.TB, c grpc.ClientConnInterface) duplex {
	t.Helper()
	s, err := testpb.NewTestServiceClient(c).FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ping(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// ping asks over an open stream for the serial that it speaks for.
func ping(s duplex) (string, error) {
	if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	resp, err := s.Recv()
	return string(resp.GetPayload().GetBody()), err
}

func current(id *rotation.Identity) string { return id.Current().Leaf().SerialNumber.Text(16) }

// connections of an identity, in all and under superseded generations.
func connections(id *rotation.Identity) (all, old int) {
	st := id.Status()
	for _, n := range st.Connections {
		all += n.Client + n.Server
		if n.Generation != st.Generation {
			old += n.Client + n.Server
		}
	}
	return all, old
}

// waitFor looks again and again: connections close in the background.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: timeout", what)
		case <-tick.C:
		}
	}
}

func wantStatus(t testing.TB, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; want %s with %q", what, err, code, text)
	}
}
