// Package tokensocket serves the access token of a service account to programs in other
// languages, by HTTP over a Unix socket.
//
//	ln, err := tokensocket.Listen(tokensocket.Socket{Path: "/run/ingester/token.sock"})
//	err = tokensocket.Serve(ctx, ln, tokensocket.Config{Client: client})
//
// GET /token answers with the cached token in the form of RFC 6749 §5.1. A program calls POST
// /token/reject if a server has answered 401 to a token; the next GET has another one.
//
// Invariants:
//
//   - The file system decides which users may have the token: the socket is made with mode
//     0600, or 0660 for one group, and its mode is never wider in between
//     (TestModeHoldsFromTheBegin).
//   - A socket on which a process listens is not replaced, and neither is a file that is no
//     socket of this user. The socket of a killed process is replaced
//     (TestWhatIsInTheWay).
//   - Slow clients cannot keep the token from others for longer than a timeout
//     (TestSlowClients). A client that rejects each token causes one request in five
//     seconds to the token endpoint (TestRejections).
//   - The token is in answers and nowhere else (TestTokenIsInAnswersOnly).
package tokensocket
