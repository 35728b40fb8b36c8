// Package proxy speaks mutual TLS for programs that cannot. A [Server] stands in front of a
// service without TLS: it accepts the peers that are allowed, and tells the service who they
// are. A [Client] stands beside a program without TLS, and connects for it.
//
//	to, err := proxy.ParseAddress("unix:/run/app/http.sock")
//	s, err := proxy.NewServer(proxy.ServerConfig{Identity: id, Allow: []string{"ingester"}, To: to, Protocol: proxy.HTTP})
//	err = s.Serve(ctx, ln) // until ctx ends, then drains
//
// Both stand on a rotating identity: see package rotation for when connections are
// drained or cut. What the proxy adds is on the side without TLS.
//
// # What the service is told
//
// In HTTP: the name of the allow list by which the peer was admitted
// (ServerConfig.IdentityHeader), and its certificate (Client-Cert, RFC 9440). In TCP, if
// asked for: a header of the PROXY protocol, version 2, with the same name as a TLV of type
// 0xE0. A service must be reachable through the proxy only, or anybody can tell it anything.
//
// Invariants:
//
//   - Only peers on the allow list reach the service, an empty list is refused
//     (TestRefusesPeers, TestBadConfigurations), and a peer that is denied or revoked later is
//     cut, also in the middle of a WebSocket (TestDeniedPeerIsCut).
//   - A peer cannot make up the identity that the service sees: no spelling of the headers
//     passes, no header can remove them, and nothing leads past them (TestServiceSeesThePeer,
//     TestForgedIdentity, TestForgedIdentityHTTP2, TestForeignIdentityHeaders, TestSmuggling,
//     TestSmugglingHTTP2, TestNoWayPast, TestPeerSpeaksPROXY, FuzzScrub, FuzzProxyHeader).
//   - A target reaches the service as it was sent, or not at all (TestTargetIsNotRewritten).
//   - Cleartext stays on this machine unless that is asked for (TestCleartextStaysHere,
//     FuzzParseAddress), and no web page can use the identity of a client
//     (TestClientRefusesBrowsers).
//   - The end of one direction is passed on as that. A connection that breaks is never passed
//     on as one that ends (TestBothSidesTCP, TestTruncationIsNoEnd,
//     TestTruncatedAnswerIsNoEnd).
//   - Requests that begin after a rotation use the new certificate, and streams of before go on
//     until the time to drain is over (TestRotations, TestClientStreamsDrain).
//   - What a peer can make the proxy hold is bounded: connections (TestFlood), requests
//     (TestOpenRequestsOfOneAddress), headers (TestLargeHeaders), time without progress
//     (TestIdle, TestSlowHeaders), and bytes under way (TestBackpressure).
//   - A service that is away is one error for each connection or request, and counts
//     (TestServiceAway, TestServiceAwayHTTP).
package proxy
