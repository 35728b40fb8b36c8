// Package rotation keeps the TLS identity of a running service fresh. Leaf, key and
// trust bundle change without a restart, without a failed request, and without a
// connection that goes on with an old certificate for long.
//
//	id, err := rotation.Open(ctx, rotation.Config{
//		Source: files.Source(files.Set{Cert: "tls.crt", Key: "tls.key", CA: "ca.crt"}),
//	})
//	defer id.Close()
//	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
//	err = server.Serve(ctx, ln, mux) // until ctx ends, then drains
//	transport, err := id.Transport(rotation.TransportOptions{})
//	client := &http.Client{Transport: transport}
//
// # Generations
//
// Everything that changes together is one immutable [Generation] behind one atomic
// pointer. A handshake, a request or a [Lease] sees one generation from start to end.
// A [Source] proposes candidates, and the gate judges them: [Material] has the rules.
//
// A [Server] judges its peers in the handshake, before each request, and once a second
// while a connection is open. A [Transport] owns the connections of each generation:
// the connections of a superseded one are closed when nothing needs them, at the latest
// after Config.DrainTimeout or when the leaf expires. Revocation lists are part of a
// generation; without lists, revocation is not checked.
//
// Invariants:
//
//   - A request that starts after a rotation uses the new generation, and a request
//     that has started finishes on its own (TestRotateUnderLoad).
//   - A superseded generation is closed after Config.DrainTimeout, leased or not
//     (TestHardClose).
//   - A candidate that the gate refuses changes nothing (TestGate).
//   - A renewal costs no session resumption (TestIdentityRotationKeepsResumption).
//     Tickets end when trust or lists change (TestResumeAfterTrustRemoved,
//     TestRevokedClient).
//   - The [Authorizer] is asked in resumed handshakes too (TestAuthorizerRunsOnResumption)
//     and for each request (TestDeniedRequestOverOpenConnection). A connection whose
//     peer it refuses is cut within about a second, or at once by [Server.Reauthorize]
//     (TestDeniedStreamIsCut).
//   - A revoked peer loses its open connections, be it a client (TestRevokedClient) or
//     a server (TestRevokedServer).
//   - What a list has named stays refused whatever later lists say
//     (TestPeerNeverUnrevokes), until the certificate has ended
//     (TestKeptIsDroppedAtItsEnd).
//   - A refused client can read the alert that says why (TestRefusedPeerReadsWhy).
//   - A handshake gets its configuration without an allocation
//     (TestServerConfigZeroAlloc).
//   - No log line, error or status holds a private key (TestLogsNeverHoldKeys).
//
// # Rules for callers
//
// Close response bodies, release leases, and close the Identity last. An Authorizer
// sees an identity whose key is not yet proven, because a TLS 1.3 server verifies the
// signature after it (RFC 8446 §4.4.3): an Authorizer decides, and must not record. A nil
// Authorizer is refused. The roots of the operating system are never used.
package rotation
