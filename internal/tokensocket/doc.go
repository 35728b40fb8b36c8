// Package tokensocket serves the access token of a service account to programs in other
// languages, by HTTP over a Unix socket.
//
//	ln, err := unixsocket.Listen(ctx, unixsocket.Socket{Path: "/run/ingester/token.sock"})
//	err = tokensocket.Serve(ctx, ln, tokensocket.Config{Client: client})
//
// GET /token answers with the cached token in the form of RFC 6749 §5.1. A program calls POST
// /token/reject if a server has answered 401 to a token; the next GET has another one.
//
// Invariants:
//
//   - The file system decides which users may have the token: package unixsocket makes the
//     socket, which is gone at the end (TestRemovedAtTheEnd).
//   - Slow clients cannot keep the token from others for longer than a timeout
//     (TestSlowClients). A client that rejects each token causes one request in five
//     seconds to the token endpoint (TestRejections).
//   - The token is in answers and nowhere else (TestTokenIsInAnswersOnly).
package tokensocket
