// Package rotgrpc runs gRPC with the identities of package rotation.
//
//	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
//	srv := grpc.NewServer(append(rotgrpc.ServerOptions(server),
//		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute}),
//	)...)
//
//	client, err := rotgrpc.NewClient(id, "dns:///storage:8443", rotation.TransportOptions{})
//	defer client.Close()
//	health := healthpb.NewHealthClient(client)
//
// A server keeps the promises of [rotation.Server]: with [ServerOptions], Authorize is
// asked for each call. A client has one grpc.ClientConn for each generation, so a call uses
// the generation in effect at its start. A single grpc.ClientConn would go on with the
// old certificate as long as its connection lives.
//
// Invariants:
//
//   - No call fails because of rotations, and none that starts after a rotation uses the
//     older certificate (TestRotationsUnderLoad).
//   - A superseded connection closes when its last call has ended, however a stream ends
//     (TestEveryEndOfAStreamReleases), and after Config.DrainTimeout at the latest: open
//     streams then fail with Unavailable or Canceled (TestEndlessStreamIsCut).
//   - Connections of revoked peers are cut with streams open (TestRevokedPeerIsCut), and
//     calls of peers that Authorize refuses get PermissionDenied (TestDenied).
//
// # Rules for callers
//
// Only the keepalive of grpc-go can send GOAWAY. So set MaxConnectionAge below the
// lifetime of the clients' certificates: then clients connect again without a failed call.
// In handlers, peer.FromContext has a [credentials.TLSInfo].
//
// A stream holds its connection until it is over in the sense of
// [grpc.ClientConn.NewStream]: receive until an error, or cancel its context. Close the
// client before the identity. The certificate of the server must have the name
// TransportOptions.ServerName, or else that of grpc.WithAuthority or the host of the target.
package rotgrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/rotation"
)

const h2 = "h2" // RFC 9113 §3.1: the only protocol of gRPC

// ServerOptions returns [ServerCredentials], and interceptors that refuse a call with
// PermissionDenied if its peer would not be admitted now. They run after those of
// grpc.UnaryInterceptor and grpc.StreamInterceptor, and before those of later options.
func ServerOptions(s *rotation.Server) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(ServerCredentials(s)),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := admit(ctx, s); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := admit(stream.Context(), s); err != nil {
				return err
			}
			return next(srv, stream)
		}),
	}
}

// admit does not tell the peer the reason. Authorize logs it.
func admit(ctx context.Context, s *rotation.Server) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.PermissionDenied, "the peer is not known")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || s.Authorize(info.State) != nil {
		return status.Error(codes.PermissionDenied, "the client certificate is not accepted any more")
	}
	return nil
}

// ServerCredentials returns credentials for grpc.Creds, whose connections s monitors. s
// must offer "h2", as it does by default: a connection with another protocol is closed.
// Without the interceptors of [ServerOptions], a peer that Authorize refuses can make
// calls until its connection is cut.
func ServerCredentials(s *rotation.Server) credentials.TransportCredentials {
	return serverCredentials{s}
}

type serverCredentials struct{ server *rotation.Server }

// ServerHandshake takes 10 s at most, the limit of [rotation.Server.Handshake], or
// grpc.ConnectionTimeout, which is a deadline on raw.
func (c serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	//nolint:forbidigo // gRPC has none to give
	conn, err := c.server.Handshake(context.Background(), raw)
	if err != nil {
		return nil, nil, fmt.Errorf("accepting a TLS connection: %w", err)
	}
	return authenticated(conn)
}

func (serverCredentials) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	_ = raw.Close() // unused
	return nil, nil, errors.New("rotgrpc: these credentials are for servers, clients are made by NewClient")
}

func (serverCredentials) Info() credentials.ProtocolInfo { return protocol() }

func (c serverCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName is deprecated in gRPC and does nothing.
func (serverCredentials) OverrideServerName(string) error { return nil }

// clientCredentials are the credentials of the connection of one generation.
type clientCredentials struct{ transport *rotation.Transport }

// ClientHandshake verifies the host of authority, which gRPC takes from the target: a
// resolver chooses addresses, never names.
func (c clientCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority // without a port
	}
	conn, err := c.transport.Handshake(ctx, raw, host, h2)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a TLS connection to %q: %w", host, err)
	}
	return authenticated(conn)
}

func (clientCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	_ = raw.Close() // unused
	return nil, nil, errors.New("rotgrpc: these credentials are for clients, see ServerCredentials")
}

func (clientCredentials) Info() credentials.ProtocolInfo { return protocol() }

func (c clientCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName is deprecated in gRPC and does nothing.
func (clientCredentials) OverrideServerName(string) error { return nil }

func protocol() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// authenticated returns the same information as credentials.NewTLS does, so that
// authorization code written for it works.
func authenticated(conn *tls.Conn) (net.Conn, credentials.AuthInfo, error) {
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != h2 {
		_ = conn.Close() // nothing was sent
		return nil, nil, fmt.Errorf("rotgrpc: the connection is for %q, gRPC needs %q", state.NegotiatedProtocol, h2)
	}
	info := credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
	if len(state.PeerCertificates) > 0 {
		if uris := state.PeerCertificates[0].URIs; len(uris) == 1 && uris[0].Scheme == "spiffe" {
			info.SPIFFEID = uris[0]
		}
	}
	return conn, info, nil
}
