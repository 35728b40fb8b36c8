// Package rotgrpc runs gRPC over identities of package rotation.
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
// # Promises
//
// Servers: what [rotation.Server] promises holds for gRPC too. With
// [ServerOptions], Authorize is asked for each call, as its Handler does for each
// request. Connections are cut with streams open: those of revoked peers at once,
// those of peers that Authorize refuses within about a second, or at once by
// [rotation.Server.Reauthorize]. A connection whose peer expired or lost its root
// is cut after ServerOptions.DrainTimeout of package rotation. grpc-go lets only
// its own keepalive say GOAWAY, so MaxConnectionAge is what makes clients move
// without a failed call: set it below the lifetime of their certificates. In
// handlers, peer.FromContext has a [credentials.TLSInfo].
//
// Clients: a call that starts uses the generation in effect. Each generation
// has a grpc.ClientConn of its own, so that calls under way finish where they
// began; it closes when the last one is over, at the latest after Config.DrainTimeout
// or when the leaf expires. Streams that are open then fail with Unavailable or
// Canceled. A grpc.ClientConn with bare credentials would go on with the old
// certificate as long as its connection lives.
//
// # Rules for callers
//
// A stream counts until it is over in the sense of [grpc.ClientConn.NewStream]:
// receive until an error, or cancel its context. Close the client before the
// identity. The name of the server is TransportOptions.ServerName, or else the
// host of the target, or the one of grpc.WithAuthority; the server's certificate
// must have it.
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

// ServerOptions returns what a gRPC server needs: [ServerCredentials], and
// interceptors that refuse a call with PermissionDenied when its peer would no
// longer be admitted. They are chained behind those of grpc.UnaryInterceptor and
// grpc.StreamInterceptor and before those of later options.
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

// admit does not tell the peer why: that is for the log of the server, which Authorize writes.
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

// ServerCredentials returns credentials for grpc.Creds. Connections belong to
// s, which must offer "h2", as it does by default: one that agrees on another
// protocol is closed. Alone they let a peer that Authorize refuses now make calls
// until its connection is cut: see [ServerOptions].
func ServerCredentials(s *rotation.Server) credentials.TransportCredentials {
	return serverCredentials{s}
}

type serverCredentials struct{ server *rotation.Server }

// ServerHandshake is bounded by the limit of [rotation.Server.Handshake] and by
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

// clientCredentials are those of the connection of one generation.
type clientCredentials struct{ transport *rotation.Transport }

// ClientHandshake asks for the host of authority, which gRPC takes from the
// target: a resolver can choose addresses, never names.
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

// authenticated says about a connection what credentials.NewTLS says, so that
// authorisation written for that works here.
func authenticated(conn *tls.Conn) (net.Conn, credentials.AuthInfo, error) {
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != h2 {
		_ = conn.Close() // nothing was said yet
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
