package rotgrpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/rotgrpc"
	identitystatus "github.com/artstore/artstore-pki/rotation/status"
)

// TestRefusedPeersAreCounted expects that ten refused calls over one connection, and ten
// refused handshakes of each kind, are counted by reason and are one line of the log.
func TestRefusedPeersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer // written under the lock of the handler
		var denies atomic.Bool
		ca, network := pkitest.NewCA(t), pkitest.NewNetwork()
		id := pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "storage")), Logger: slog.New(slog.NewTextHandler(&out, nil))})
		server, err := id.Server(rotation.ServerOptions{Authorize: func(cs tls.ConnectionState) error {
			if denies.Load() {
				return rotation.ErrPeerDenied
			}
			return rotation.AllowNames("ingester")(cs)
		}})
		if err != nil {
			t.Fatal(err)
		}
		srv := grpc.NewServer(rotgrpc.ServerOptions(server)...)
		testpb.RegisterTestServiceServer(srv, service{})
		go func() { _ = srv.Serve(network) }()
		t.Cleanup(srv.Stop)

		client := newClient(t, pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "ingester"))}), "passthrough:///storage",
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return network.Dial(ctx, "tcp", addr) }))
		if _, err := whoami(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		denies.Store(true)
		for range 10 {
			if _, err := whoami(t.Context(), client); status.Code(err) != codes.PermissionDenied {
				t.Fatalf("a refused call ends with %v", err)
			}
		}
		want := identitystatus.RefusedPeers{Denied: 10}
		if got := id.Status().RefusedPeers; got != want {
			t.Errorf("after the calls: %+v, want %+v", got, want)
		}
		server.Reauthorize() // the open connection ends as well
		for _, m := range []rotation.Material{ca.Leaf(t, "ingester"), pkitest.NewCA(t).Leaf(t, "ingester"), {}} {
			for range 10 {
				refusedHandshake(t, network, ca, m)
			}
		}
		want = identitystatus.RefusedPeers{Denied: 21, UnknownIssuer: 10, NoCertificate: 10}
		if got := id.Status().RefusedPeers; got != want {
			t.Errorf("in all: %+v, want %+v", got, want)
		}
		for _, reason := range []string{"denied", "unknown_issuer", "no_certificate"} {
			if n := strings.Count(out.String(), `msg="peer refused" reason=`+reason); n != 1 {
				t.Errorf("%d lines about %s, want one:\n%s", n, reason, out.String())
			}
		}
	})
}

func refusedHandshake(t *testing.T, network *pkitest.Network, ca *pkitest.CA, m rotation.Material) {
	t.Helper()
	raw, err := network.Dial(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root)
	c := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "storage", NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.Certificate, nil },
	})
	if err := c.HandshakeContext(t.Context()); err == nil {
		if _, err = c.Read(make([]byte, 1)); err == nil {
			t.Error("a refused peer was answered")
		}
	}
	_ = raw.Close()
	synctest.Wait()
}
