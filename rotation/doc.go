// Package rotation keeps the TLS identity of a running service fresh: leaf,
// key and trust bundle change under it without a restart, a failed request or
// a connection that still speaks for the old certificate.
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
// Everything that changes together is one immutable [Generation] behind one
// atomic pointer. A handshake, a request or a [Lease] sees one generation and
// never a mix. A [Source] proposes; the gate decides: a candidate that is
// expired, torn, truncated or of the wrong usage is never published, and the
// last good generation stays in effect (see [Material] for the rules).
//
// # Promises
//
// Servers: the configuration of a generation is built once and handed out
// without allocation. Tickets survive a renewal and end when names, trust,
// revocation lists or ServerOptions.PolicyVersion change, which is for tickets
// only. The [Authorizer] runs on resumed connections too, for each request, and
// once a second for each open connection: when it refuses a peer, the next
// request is answered 403 and the connection is cut within about a second, at
// once by [Server.Reauthorize]. Open connections are judged again when trust or
// lists change and when their peer expires: those of revoked peers are cut, the
// others are asked to connect anew and cut after a grace. A refused peer gets to
// read why.
//
// Clients: a [Transport] owns the connections of each generation. A request
// that has started finishes on its generation; the next one uses the new one;
// connections of a superseded generation are closed when nothing needs them,
// at the latest after Config.DrainTimeout or when the leaf expires, and at once when
// the server turns out to be revoked.
//
// Revocation: lists are part of the generation ([Material]). In effect, a list
// never gets older and never gets lost; without lists nothing is asked for.
//
// # Rules for callers
//
// Close response bodies, release leases, and close the Identity last. An
// Authorizer sees an identity whose key is not yet proven (TLS 1.3 servers
// verify the signature after it): it decides, it must not record. A nil
// Authorizer is refused, the trust of the operating system is never consulted.
package rotation
